# shellcheck shell=sh
# jobs/mpi-env.sh: what Open MPI has to be told to run Expertmesh on one machine, whoever runs it and however few its cores.
#
#   . jobs/mpi-env.sh [RANKS]      before  mpirun -n RANKS expertmesh ...
#
# RANKS is the most ranks to be started here; without it, more than there are cores. What is set already stays as it is.
# `ompi_info --param all all -l 9` describes each OMPI_MCA_ parameter.

# Containers and fresh machines run everything as root, which mpirun refuses unless told twice that it is meant.
if [ "$(id -u)" = 0 ]; then
    export OMPI_ALLOW_RUN_AS_ROOT="${OMPI_ALLOW_RUN_AS_ROOT-1}"
    export OMPI_ALLOW_RUN_AS_ROOT_CONFIRM="${OMPI_ALLOW_RUN_AS_ROOT_CONFIRM-1}"
fi

# Cores, not hardware threads (Open MPI counts its slots so), and no more of them than this process may use.
em_cores=$(lscpu -b -p=Core,Socket 2>/dev/null | grep -v '^#' | sort -u | wc -l) || em_cores=0 # no lscpu, or no /sys
if [ "$em_cores" -lt 1 ] || [ "$(nproc)" -lt "$em_cores" ]; then em_cores=$(nproc); fi
case ${1-} in
    '' | *[!0-9]*) em_ranks=$((em_cores + 1)) ;;
    *) em_ranks=$1 ;;
esac

if [ "$em_cores" -lt "$em_ranks" ]; then
    # Start more ranks than there are slots; otherwise mpirun stops with "not enough slots available".
    export OMPI_MCA_rmaps_base_oversubscribe="${OMPI_MCA_rmaps_base_oversubscribe-1}"
    # A rank that waits in MPI gives its core away instead of spinning on it, or the others on that core starve.
    export OMPI_MCA_mpi_yield_when_idle="${OMPI_MCA_mpi_yield_when_idle-1}"
    # Let the system move ranks between cores: bound, two may share one core while another idles.
    export OMPI_MCA_hwloc_base_binding_policy="${OMPI_MCA_hwloc_base_binding_policy-none}"
fi

# When a run ends with an exit code other than 0, mpirun tells the ranks that are about to end to end, and then sleeps a second
# or two before it looks again. Nothing is lost without that sleep: what a trace counts as written is on its way to the disk.
export OMPI_MCA_odls_base_sigkill_timeout="${OMPI_MCA_odls_base_sigkill_timeout-0}"

# Debian's library for InfiniPath adapters waits a fifth of a second for one whenever Open MPI looks whether `cm` can serve; and when
# it looks whether `ucx` can, UCX 1.13 starts a thread that on a busy machine now and then crashes the rank ("Assertion
# `ucs_async_thread_global_context.thread != NULL' failed"). Adapters that these are for (InfiniBand, RoCE, InfiniPath, Omni-Path,
# EFA) are in this folder where there are any. Where a job's hosts have one and the one that this is read on has not,
# OMPI_MCA_pml=ucx or cm before it says so.
if [ ! -d /sys/class/infiniband ]; then export OMPI_MCA_pml="${OMPI_MCA_pml-^cm,ucx}"; fi

# Between hosts: notice a dead link in about 8 s instead of minutes. mpirun's daemons probe a connection that has been
# silent for 5 s ...
export OMPI_MCA_oob_tcp_keepalive_time="${OMPI_MCA_oob_tcp_keepalive_time-5}"
# ... every second ...
export OMPI_MCA_oob_tcp_keepalive_intvl="${OMPI_MCA_oob_tcp_keepalive_intvl-1}"
# ... and end the job after three probes without an answer.
export OMPI_MCA_oob_tcp_keepalive_probes="${OMPI_MCA_oob_tcp_keepalive_probes-3}"

unset em_cores em_ranks
