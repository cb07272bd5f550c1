/* One file of the official checkpoint: a pickle (protocol 4) of a NumPy array, or of a QuantizedWeight8bit, which holds two.
 *
 * A pickle is a program for a stack machine. This machine knows the opcodes and the five globals that occur in such files, and
 * what they build, in a few kilobytes whatever the file says: a global is a word to it, calling one makes a description, and
 * the bytes of an array are passed over. Whatever else a pickle would do is refused by opcode and place; nothing is ever run.
 *
 * An array is  _reconstruct(ndarray, (0,), b"b")  built from  (1, shape, dtype, is Fortran order, bytes);  a dtype is
 * dtype("f4", False, True)  built from  (3, byte order, None, None, None, size, alignment, flags). */
#include "foreign.h"

#include <stdio.h>
#include <string.h>
#include <stdlib.h>

typedef enum em_global {
    UNKNOWN_GLOBAL,
    RECONSTRUCT,
    NDARRAY,
    DTYPE,
    BFLOAT16,
    QUANTIZED_WEIGHT,
} em_global;

typedef enum em_kind {
    A_NONE,
    A_BOOL,
    AN_INT,
    A_TEXT,
    SOME_BYTES,
    A_TUPLE,
    A_DICT,
    A_GLOBAL,
    A_DTYPE,
    AN_ARRAY,
    A_PAIR
} em_kind;

static const char *const kind_names[] = {"None",
                                         "a bool",
                                         "an int",
                                         "text",
                                         "bytes",
                                         "a tuple",
                                         "a dict",
                                         "a global",
                                         "a dtype",
                                         "an array",
                                         "a QuantizedWeight8bit"};

enum { LONGEST_TEXT = 40, MOST_VALUES = 64, MOST_ITEMS = 128, MOST_MEMO = 128, MOST_MARKS = 8, MOST_ARRAYS = 2 };

typedef struct value {
    em_kind kind;
    int64_t number;          /* of a bool, int, global, dtype or array; of a tuple the place of its first item */
    int64_t length;          /* of text, bytes or a tuple */
    int64_t offset;          /* of bytes in the file */
    char text[LONGEST_TEXT]; /* ended by NUL */
} value;

typedef struct machine {
    em_cursor cursor;
    em_status *status;
    int64_t at; /* the opcode that is carried out */
    value stack[MOST_VALUES], item[MOST_ITEMS], memo[MOST_MEMO];
    int depth, items, memos;
    int mark[MOST_MARKS], marks; /* depths of the stack */
    em_array array[MOST_ARRAYS];
    bool built[MOST_ARRAYS];
    int arrays;
    int data, scales; /* which arrays the pair's dict names; -1: none yet */
    bool has_dict, has_pair, pair_built;
} machine;

static bool refuse(machine *m, const char *what)
{
    em_fail(m->status, EM_BAD_DATA, "%s: no tensor of the checkpoint: at byte %lld %s; nothing was executed",
            m->cursor.input->path, (long long)m->at, what);
    return false;
}

/* ---- the stack ---- */

static bool push(machine *m, value v)
{
    if (m->depth == MOST_VALUES) return refuse(m, "more values are on the stack than ever");
    m->stack[m->depth++] = v;
    return true;
}

/* Depth below which nothing may be popped: the last mark. */
static int ground(const machine *m)
{
    return m->marks > 0 ? m->mark[m->marks - 1] : 0;
}

static bool pop(machine *m, value *v)
{
    if (m->depth <= ground(m)) return refuse(m, "a value is missing on the stack");
    *v = m->stack[--m->depth];
    return true;
}

static bool push_int(machine *m, em_kind kind, int64_t number)
{
    return push(m, (value){.kind = kind, .number = number});
}

static bool push_text(machine *m)
{
    uint64_t length;
    value v = {.kind = A_TEXT};
    if (!em_cursor_number(&m->cursor, 1, &length, m->status)) return false;
    if (length >= LONGEST_TEXT) return refuse(m, "is text longer than any word of such a file");
    if (!em_cursor_take(&m->cursor, (int64_t)length, v.text, m->status)) return false;
    v.length = (int64_t)length;
    return push(m, v);
}

/* Bytes stay where they are. */
static bool push_bytes(machine *m, int size_bytes)
{
    uint64_t length;
    if (!em_cursor_number(&m->cursor, size_bytes, &length, m->status)) return false;
    if (length > (uint64_t)(m->cursor.input->size - m->cursor.next))
        return refuse(m, "are more bytes than the file has");
    value v = {.kind = SOME_BYTES, .length = (int64_t)length, .offset = m->cursor.next};
    m->cursor.next += v.length;
    return push(m, v);
}

static bool push_tuple(machine *m, int count)
{
    if (m->depth - ground(m) < count) return refuse(m, "a value is missing on the stack");
    if (m->items + count > MOST_ITEMS) return refuse(m, "are more tuples than ever");
    value v = {.kind = A_TUPLE, .number = m->items, .length = count};
    memcpy(m->item + m->items, m->stack + m->depth - count, (size_t)count * sizeof(value));
    m->items += count;
    m->depth -= count;
    return push(m, v);
}

static bool set_mark(machine *m)
{
    if (m->marks == MOST_MARKS) return refuse(m, "are more marks than ever");
    m->mark[m->marks++] = m->depth;
    return true;
}

/* Forget the last mark; how many values lie above it. */
static bool to_mark(machine *m, int *count)
{
    if (m->marks == 0) return refuse(m, "a mark is missing on the stack");
    *count = m->depth - m->mark[--m->marks];
    return true;
}

static bool memoize(machine *m)
{
    if (m->depth <= ground(m)) return refuse(m, "a value is missing on the stack");
    if (m->memos == MOST_MEMO) return refuse(m, "are more values kept than ever");
    m->memo[m->memos++] = m->stack[m->depth - 1];
    return true;
}

static bool recall(machine *m)
{
    uint64_t index;
    if (!em_cursor_number(&m->cursor, 1, &index, m->status)) return false;
    if (index >= (uint64_t)m->memos) return refuse(m, "a value is asked for that was not kept");
    return push(m, m->memo[index]);
}

/* ---- what they mean ---- */

static em_global global_of(const char *module, const char *name)
{
    if (strcmp(name, "_reconstruct") == 0 &&
        (strcmp(module, "numpy.core.multiarray") == 0 || strcmp(module, "numpy._core.multiarray") == 0))
        return RECONSTRUCT;
    if (strcmp(module, "numpy") == 0 && strcmp(name, "ndarray") == 0) return NDARRAY;
    if (strcmp(module, "numpy") == 0 && strcmp(name, "dtype") == 0) return DTYPE;
    if (strcmp(name, "bfloat16") == 0 && (strcmp(module, "ml_dtypes") == 0 || strncmp(module, "jax", 3) == 0))
        return BFLOAT16;
    if (strcmp(module, "__main__") == 0 && strcmp(name, "QuantizedWeight8bit") == 0) return QUANTIZED_WEIGHT;
    return UNKNOWN_GLOBAL;
}

static bool push_global(machine *m)
{
    value module, name;
    if (!pop(m, &name) || !pop(m, &module)) return false;
    if (module.kind != A_TEXT || name.kind != A_TEXT) return refuse(m, "a global is named by something else than text");
    em_global global = global_of(module.text, name.text);
    if (global != UNKNOWN_GLOBAL) return push_int(m, A_GLOBAL, global);
    char what[2 * LONGEST_TEXT + 100];
    snprintf(what, sizeof what, "it wants the global \"%s\" of the module \"%s\"", name.text, module.text);
    return refuse(m, what);
}

static bool is_global(const value *v, em_global global)
{
    return v->kind == A_GLOBAL && v->number == (int64_t)global;
}

static bool is_number(const value *v, int64_t number)
{
    return (v->kind == A_BOOL || v->kind == AN_INT) && v->number == number;
}

/* dtype(what, False, True) */
static bool make_dtype(machine *m, const value *args)
{
    const value *arg = m->item + args->number;
    if (args->length != 3 || !is_number(&arg[1], 0) || !is_number(&arg[2], 1))
        return refuse(m, "a dtype is made in an unknown way");
    if (is_global(&arg[0], BFLOAT16)) return push_int(m, A_DTYPE, EM_NUMBER_BF16);
    if (arg[0].kind == A_TEXT && strcmp(arg[0].text, "i1") == 0) return push_int(m, A_DTYPE, EM_NUMBER_INT8);
    if (arg[0].kind == A_TEXT && strcmp(arg[0].text, "f4") == 0) return push_int(m, A_DTYPE, EM_NUMBER_F32);
    return refuse(m, "is a dtype other than i1, f4 and bfloat16");
}

/* _reconstruct(ndarray, (0,), b"b") */
static bool make_array(machine *m, const value *args)
{
    const value *arg = m->item + args->number;
    if (args->length != 3 || !is_global(&arg[0], NDARRAY) || arg[1].kind != A_TUPLE || arg[2].kind != SOME_BYTES)
        return refuse(m, "an array is made in an unknown way");
    if (m->arrays == MOST_ARRAYS) return refuse(m, "are more arrays than a weight and its scales");
    return push_int(m, AN_ARRAY, m->arrays++);
}

static bool reduce(machine *m)
{
    value args, callable;
    if (!pop(m, &args) || !pop(m, &callable)) return false;
    if (args.kind == A_TUPLE && is_global(&callable, DTYPE)) return make_dtype(m, &args);
    if (args.kind == A_TUPLE && is_global(&callable, RECONSTRUCT)) return make_array(m, &args);
    return refuse(m, "something else than an array or a dtype would be called");
}

static bool make_pair(machine *m)
{
    value args, class;
    if (!pop(m, &args) || !pop(m, &class)) return false;
    if (!is_global(&class, QUANTIZED_WEIGHT) || args.kind != A_TUPLE || args.length != 0 || m->has_pair)
        return refuse(m, "is an object other than one QuantizedWeight8bit");
    m->has_pair = true;
    return push_int(m, A_PAIR, 0);
}

static bool make_dict(machine *m)
{
    if (m->has_dict) return refuse(m, "is a second dict");
    m->has_dict = true;
    return push_int(m, A_DICT, 0);
}

static bool set_items(machine *m)
{
    int count;
    if (!to_mark(m, &count)) return false;
    const value *item = m->stack + m->depth - count;
    m->depth -= count;
    if (m->depth <= ground(m) || m->stack[m->depth - 1].kind != A_DICT || count % 2 != 0)
        return refuse(m, "items are set of something else than a dict");
    for (int i = 0; i < count; i += 2) {
        bool weight = strcmp(item[i].text, "weight") == 0, scales = strcmp(item[i].text, "scales") == 0;
        int *place = weight ? &m->data : &m->scales;
        if (item[i].kind != A_TEXT || (!weight && !scales) || item[i + 1].kind != AN_ARRAY || *place >= 0)
            return refuse(m, "is an attribute other than the arrays weight and scales");
        *place = (int)item[i + 1].number;
    }
    return true;
}

static bool build_dtype(machine *m, const value *state)
{
    const value *item = m->item + state->number;
    if (state->length != 8 || !is_number(&item[0], 3) || item[1].kind != A_TEXT || item[2].kind != A_NONE ||
        item[3].kind != A_NONE || item[4].kind != A_NONE)
        return refuse(m, "is a dtype of an unknown form");
    if (strcmp(item[1].text, "<") != 0 && strcmp(item[1].text, "|") != 0)
        return refuse(m, "is a dtype that is not little-endian");
    return true;
}

static bool build_array(machine *m, const value *state, int which)
{
    const value *item = m->item + state->number;
    em_array *array = &m->array[which];
    if (state->length != 5 || !is_number(&item[0], 1) || item[1].kind != A_TUPLE || item[2].kind != A_DTYPE ||
        item[3].kind != A_BOOL || item[4].kind != SOME_BYTES || m->built[which])
        return refuse(m, "is an array of an unknown form");
    if (item[3].number != 0) return refuse(m, "is an array in Fortran order");
    if (item[1].length < 1 || item[1].length > EM_MAX_AXES) return refuse(m, "is an array of no or too many axes");
    *array = (em_array){.number = (em_number)item[2].number, .rank = (int)item[1].length, .offset = item[4].offset};
    int64_t bytes = em_number_bytes(array->number, 1);
    for (int i = 0; i < array->rank; i++) {
        const value *dim = &m->item[item[1].number + i];
        array->dims[i] = dim->number;
        if (dim->kind != AN_INT || dim->number < 1 || __builtin_mul_overflow(bytes, dim->number, &bytes))
            return refuse(m, "is an array of an impossible shape");
    }
    if (bytes != item[4].length) return refuse(m, "is an array whose shape and bytes do not agree");
    m->built[which] = true;
    return true;
}

static bool build(machine *m)
{
    value state;
    if (!pop(m, &state)) return false;
    if (m->depth <= ground(m)) return refuse(m, "a value is missing on the stack");
    const value *object = &m->stack[m->depth - 1];
    if (object->kind == A_DTYPE && state.kind == A_TUPLE) return build_dtype(m, &state);
    if (object->kind == AN_ARRAY && state.kind == A_TUPLE) return build_array(m, &state, (int)object->number);
    if (object->kind == A_PAIR && state.kind == A_DICT) return m->pair_built = true;
    char what[100];
    snprintf(what, sizeof what, "%s would be built from %s", kind_names[object->kind], kind_names[state.kind]);
    return refuse(m, what);
}

/* ---- the opcodes (Python's pickletools.py has them all) ---- */

static bool unknown_opcode(machine *m, unsigned char code)
{
    static const struct {
        unsigned char code;
        const char *name;
    } known[] = {{'c', "GLOBAL"},     {'i', "INST"},       {'o', "OBJ"},         {'P', "PERSID"},
                 {'Q', "BINPERSID"},  {'d', "DICT"},       {'l', "LIST"},        {']', "EMPTY_LIST"},
                 {'a', "APPEND"},     {'e', "APPENDS"},    {'s', "SETITEM"},     {'q', "BINPUT"},
                 {'p', "PUT"},        {'g', "GET"},        {'X', "BINUNICODE"},  {'0', "POP"},
                 {'1', "POP_MARK"},   {'2', "DUP"},        {'G', "BINFLOAT"},    {0x82, "EXT1"},
                 {0x83, "EXT2"},      {0x84, "EXT4"},      {0x8a, "LONG1"},      {0x8d, "BINUNICODE8"},
                 {0x8f, "EMPTY_SET"}, {0x92, "NEWOBJ_EX"}, {0x96, "BYTEARRAY8"}, {0x97, "NEXT_BUFFER"}};
    char what[100];
    const char *name = "unknown";
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (known[i].code == code) name = known[i].name;
    snprintf(what, sizeof what, "is the opcode 0x%02x (%s), which no such file has", code, name);
    return refuse(m, what);
}

static bool start(machine *m)
{
    uint64_t version;
    if (!em_cursor_number(&m->cursor, 1, &version, m->status)) return false;
    return (version == 4 && m->at == 0) || refuse(m, "is a pickle protocol other than 4");
}

static bool check_frame(machine *m)
{
    uint64_t length;
    if (!em_cursor_number(&m->cursor, 8, &length, m->status)) return false;
    return length <= (uint64_t)(m->cursor.input->size - m->cursor.next) || refuse(m, "is a frame longer than the file");
}

static bool push_number(machine *m, int bytes)
{
    uint64_t number;
    if (!em_cursor_number(&m->cursor, bytes, &number, m->status)) return false;
    return push_int(m, AN_INT, bytes == 4 ? (int64_t)(int32_t)(uint32_t)number : (int64_t)number);
}

static bool tuple_to_mark(machine *m)
{
    int count;
    return to_mark(m, &count) && push_tuple(m, count);
}

static bool carry_out(machine *m, unsigned char code)
{
    switch (code) {
    case 0x80: return start(m);         /* PROTO */
    case 0x95: return check_frame(m);   /* FRAME */
    case 0x8c: return push_text(m);     /* SHORT_BINUNICODE */
    case 'C': return push_bytes(m, 1);  /* SHORT_BINBYTES */
    case 'B': return push_bytes(m, 4);  /* BINBYTES */
    case 0x8e: return push_bytes(m, 8); /* BINBYTES8 */
    case 'K': return push_number(m, 1); /* BININT1 */
    case 'M': return push_number(m, 2); /* BININT2 */
    case 'J': return push_number(m, 4); /* BININT */
    case 'N': return push_int(m, A_NONE, 0);
    case 0x88: return push_int(m, A_BOOL, 1);
    case 0x89: return push_int(m, A_BOOL, 0);
    case '}': return make_dict(m);      /* EMPTY_DICT */
    case '(': return set_mark(m);       /* MARK */
    case ')': return push_tuple(m, 0);  /* EMPTY_TUPLE */
    case 0x85: return push_tuple(m, 1); /* TUPLE1 */
    case 0x86: return push_tuple(m, 2); /* TUPLE2 */
    case 0x87: return push_tuple(m, 3); /* TUPLE3 */
    case 't': return tuple_to_mark(m);  /* TUPLE */
    case 'u': return set_items(m);      /* SETITEMS */
    case 0x94: return memoize(m);       /* MEMOIZE */
    case 'h': return recall(m);         /* BINGET */
    case 0x93: return push_global(m);   /* STACK_GLOBAL */
    case 'R': return reduce(m);         /* REDUCE */
    case 0x81: return make_pair(m);     /* NEWOBJ */
    case 'b': return build(m);          /* BUILD */
    default: return unknown_opcode(m, code);
    }
}

/* At STOP: the one value on the stack is what the file holds. */
static bool finish(machine *m, em_pickle *pickle)
{
    const value *top = &m->stack[0];
    if (m->depth != 1 || m->marks > 0) return refuse(m, "the pickle ends with more or less than one value");
    if (m->cursor.next != m->cursor.input->size) return refuse(m, "the pickle ends, but not the file");
    *pickle = (em_pickle){.num_arrays = 0};
    if (top->kind == AN_ARRAY && m->arrays == 1 && m->built[0]) {
        pickle->num_arrays = 1;
        pickle->array[0] = m->array[0];
    } else if (top->kind == A_PAIR && m->pair_built && m->data >= 0 && m->scales >= 0 && m->data != m->scales &&
               m->built[m->data] && m->built[m->scales]) {
        pickle->num_arrays = 2;
        pickle->array[0] = m->array[m->data];
        pickle->array[1] = m->array[m->scales];
    }
    return pickle->num_arrays > 0 || refuse(m, "the pickle ends without an array");
}

bool em_pickle_read(const em_input *input, em_pickle *pickle, em_status *status)
{
    machine *m = em_zeroed(1, sizeof *m);
    m->cursor.input = input;
    m->status = status;
    m->data = m->scales = -1;
    unsigned char code = 0;
    bool good = true;
    while (good && code != '.') {
        m->at = m->cursor.next;
        good = em_cursor_take(&m->cursor, 1, &code, status);
        if (good && m->at == 0 && code != 0x80) good = refuse(m, "no pickle begins");
        if (good && code != '.') good = carry_out(m, code);
    }
    good = good && finish(m, pickle);
    free(m);
    return good;
}
