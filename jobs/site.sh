# shellcheck shell=bash
# jobs/site.sh: all that the job scripts must be told about a cluster. It is read by jobs/submit.sh before a job is submitted, and
# by each job when it starts. EXPERTMESH_SITE=FILE names another file to read instead.

# ---- for sbatch: it reads these itself. They outrank the #SBATCH lines of a script, and an option by hand outranks them.
# Plain `sbatch` sees them after `. jobs/site.sh`.
#export SBATCH_ACCOUNT=project_465000123
#export SBATCH_PARTITION=standard
#export SBATCH_QOS=normal
#export SBATCH_CONSTRAINT=avx512

# ---- what must be loaded on a node before the program starts: the modules that it was built with
#module purge
#module load GCC/12 OpenMPI/4.1 HDF5/1.12 cJSON

# ---- who starts the ranks: `srun` (SLURM itself, through PMIx) or `mpirun` (of Open MPI)
EXPERTMESH_LAUNCHER=${EXPERTMESH_LAUNCHER:-srun}

# ---- the program, and the folder for results, on a file system that all nodes share
#EXPERTMESH_PROGRAM=$HOME/expertmesh/build/expertmesh     # else the one in build/, else the one in PATH
#EXPERTMESH_RESULTS=/scratch/$USER/expertmesh             # else results/ where the job was submitted

# ---- the network between nodes, where Open MPI does not find the right one by itself
#export OMPI_MCA_btl_tcp_if_include=ib0
#export OMPI_MCA_pml=ucx
