/* Pixel counts behind region similarity J and boundary accuracy F (Perazzi et al., CVPR 2016).
 *
 * Both masks are held as planes of bits, never as bytes. A "line" is one image column when the input is COCO RLE
 * (which is column-major) and one image row when it is a byte array: boundary, disk and counts are the same under
 * transposition, so nothing is ever turned round. "Along" means in the direction of a line.
 *
 * Layout of a plane: 64 successive pixels of a line are one word, and the same words of successive lines lie side by
 * side in memory. LANES lines thus fill a vector register, the next line is a load at the next address, and only
 * steps along a line need shifts with carry.
 *
 *   plane[column * stride + line]     column = word index along the line
 *
 * Guards of zeros (`radius` lines before, `radius + LANES` behind, one column behind the last) take the place of
 * bounds checks in the inner loops.
 *
 * Input is hostile until parse_counts() or read_pixels() has accepted it.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#if defined(__x86_64__) || defined(_M_X64)
#include <emmintrin.h> /* SSE2 is part of the architecture */
#define HAVE_SSE2 1
#endif

#if defined(__GNUC__)
#define INLINE static inline __attribute__((always_inline))
#define POPCOUNT(word) ((int64_t)__builtin_popcountll(word))
typedef uint64_t Tile __attribute__((vector_size(32)));
#define LANES 4
#else /* MSVC and others: the same code, one line at a time */
#define INLINE static inline
typedef uint64_t Tile;
#define LANES 1
static inline int64_t popcount(uint64_t word) {
    word -= (word >> 1) & 0x5555555555555555u;
    word = (word & 0x3333333333333333u) + ((word >> 2) & 0x3333333333333333u);
    word = (word + (word >> 4)) & 0x0F0F0F0F0F0F0F0Fu;
    return (int64_t)((word * 0x0101010101010101u) >> 56);
}
#define POPCOUNT(word) popcount(word)
#endif

/* Larger sides than image and video formats allow are mistakes or attacks. The limits bound the radius, and with it
 * the memory and the time that one pair can cost. The Python side has the same. */
#define MAX_SIDE 65536
#define MAX_PIXELS ((int64_t)1 << 28)
#define MAX_RADIUS 742 /* of a square of MAX_SIDE: more than MAX_PIXELS lets happen */

enum { PRED_AREA, REF_AREA, INTERSECTION, PRED_BOUNDARY, REF_BOUNDARY, PRED_MATCHED, REF_MATCHED, FIELDS };

typedef enum { OK, NO_MEMORY, BAD_CHARACTER, CUT_OFF, TOO_LARGE, NEGATIVE, TOO_LONG, TOO_SHORT } Status;

static const char *const REASONS[] = {
    "ok",
    "out of memory",
    "RLE counts hold a character outside the COCO code",
    "RLE counts are cut off in the middle of a number",
    "RLE counts hold a number that is too large",
    "RLE counts hold a negative run length",
    "RLE counts cover more pixels than the size says",
    "RLE counts cover fewer pixels than the size says",
};

/* ------------------------------------------------------------------------------------------- tolerance disk */
typedef struct {
    int radius;
    int16_t reach[MAX_RADIUS + 1]; /* reach[d]: the largest e with d*d + e*e <= radius*radius */
} Disk;

static void make_disk(int64_t height, int64_t width, Disk *disk) {
    int64_t radius = 0, reach;
    while (15625 * radius * radius < height * height + width * width) radius++;
    reach = radius;
    for (int64_t d = 0; d <= radius; d++) {
        while (reach * reach + d * d > radius * radius) reach--;
        disk->reach[d] = (int16_t)reach;
    }
    disk->radius = (int)radius;
}

/* ----------------------------------------------------------------------------------------- memory and planes */
typedef struct {
    int32_t line, start, length; /* foreground pixels from `start` on `line`, going on over further lines */
} Run;

typedef struct {
    uint64_t *words;
    Run *runs[2];
    size_t word_capacity, run_capacity[2];
} Workspace; /* grows, and serves all pairs of a clip */

/* `memory`, or in its place new memory for `needed` items of `size` bytes; NULL when there is none. */
static void *reserve(void *memory, size_t *capacity, size_t needed, size_t size) {
    if (needed <= *capacity && memory != NULL) return memory;
    free(memory);
    memory = malloc(needed > 0 ? needed * size : 1);
    *capacity = memory == NULL ? 0 : needed;
    return memory;
}

/* The words that a mask and its boundary can occupy: lines first..last, columns low..high; none if last < 0. */
typedef struct {
    int64_t first, last, low, high;
} Box;

static Box unite(Box a, Box b) {
    if (a.first > b.first) a.first = b.first;
    if (a.last < b.last) a.last = b.last;
    if (a.low > b.low) a.low = b.low;
    if (a.high < b.high) a.high = b.high;
    return a;
}

static const Box NOTHING = {INT64_MAX, -1, INT64_MAX, -1};

/* The part of the image that is looked at, in both masks. */
typedef struct {
    uint64_t *planes[2]; /* the word of the box's first line and column */
    int64_t stride, columns, lines;
    uint64_t last_pixel; /* in the last column: the bit of a line's last pixel, or 0 if the image goes on */
    int at_last_line;    /* whether the last line is the image's last line */
} Frame;

INLINE void set_window(Frame *frame, Box box, int64_t lines, int64_t along) {
    frame->lines = box.last - box.first + 1;
    frame->columns = box.high - box.low + 1;
    frame->last_pixel = box.high == (along - 1) >> 6 ? (uint64_t)1 << ((along - 1) & 63) : 0;
    frame->at_last_line = box.last == lines - 1;
}

/* A frame of empty planes for a box in an image of `lines` lines, `along` pixels each. */
INLINE Status make_frame(Workspace *space, Box box, int64_t lines, int64_t along, const Disk *disk, Frame *frame) {
    size_t size;
    set_window(frame, box, lines, along);
    frame->stride = frame->lines + 2 * disk->radius + LANES;
    if (frame->stride % 64 == 0) frame->stride += 8; /* or the columns compete for the same cache sets */
    size = (size_t)(frame->stride * (frame->columns + 1));
    space->words = reserve(space->words, &space->word_capacity, 2 * size, sizeof(uint64_t));
    if (space->words == NULL) return NO_MEMORY;
    memset(space->words, 0, 2 * size * sizeof(uint64_t));
    frame->planes[0] = space->words + disk->radius;
    frame->planes[1] = frame->planes[0] + size;
    return OK;
}

/* ------------------------------------------------------------------------------------------------- COCO RLE */
typedef struct {
    const unsigned char *text; /* NULL: an empty mask */
    size_t length;
} Counts;

typedef struct {
    const Run *runs;
    size_t count;
    int64_t area;
    Box box;
} Runs;

/* Unpack and check a counts string. Every position that leaves this function lies inside the image. */
INLINE Status parse_counts(Counts counts, int64_t height, int64_t width, Workspace *space, int which, Runs *mask) {
    const unsigned char *next, *end;
    int64_t left = height * width, two_before[2] = {0, 0}, low = height, high = -1;
    int64_t line = 0, at = 0; /* the current position: pixel `at` of `line` */
    size_t most = counts.length / 2 + 1, count = 0;
    Run *runs;

    memset(mask, 0, sizeof *mask);
    mask->box = NOTHING;
    if (counts.text == NULL) return OK;
    if (most > (size_t)left) most = (size_t)left; /* runs without pixels are not kept */
    runs = space->runs[which] = reserve(space->runs[which], &space->run_capacity[which], most, sizeof(Run));
    if (runs == NULL) return NO_MEMORY;

    next = counts.text;
    end = next + counts.length;
    for (size_t index = 0; next < end; index++) {
        int64_t value = 0;
        unsigned shift = 0, code;
        do {
            if (next == end) return CUT_OFF;
            code = (unsigned)*next++ - 48u;
            if (code > 63) return BAD_CHARACTER;
            if (shift == 35) return TOO_LARGE; /* 7 characters hold more than any mask needs */
            value |= (int64_t)(code & 31) << shift;
            shift += 5;
        } while (code & 32);
        if (code & 16) value -= (int64_t)1 << shift;
        if (index > 2) value += two_before[index & 1];
        two_before[index & 1] = value;
        if (value < 0) return NEGATIVE;
        if (value > left) return TOO_LONG;
        left -= value;

        if ((index & 1) && value > 0) {
            runs[count++] = (Run){(int32_t)line, (int32_t)at, (int32_t)value};
            mask->area += value;
            if (at + value > height) {
                low = 0;
                high = height - 1;
            } else {
                if (low > at) low = at;
                if (high < at + value - 1) high = at + value - 1;
            }
        }
        at += value;
        if (at >= height && value > 0) {
            at -= height;
            line++;
            if (at >= height) { /* rare, and so most runs are spared the division */
                line += at / height;
                at %= height;
            }
        }
    }
    if (left > 0) return TOO_SHORT;
    if (count > 0) { /* the boundary reaches one pixel further towards the start, in both directions */
        const Run *final = &runs[count - 1];
        mask->box.first = runs[0].line - (runs[0].line > 0);
        mask->box.last = final->line + ((int64_t)final->start + final->length - 1) / height;
        mask->box.low = (low - (low > 0)) >> 6;
        mask->box.high = high >> 6;
    }
    mask->runs = runs;
    mask->count = count;
    return OK;
}

INLINE void draw_runs(const Runs *mask, uint64_t *plane, int64_t stride, Box box, int64_t height) {
    for (size_t i = 0; i < mask->count; i++) {
        int64_t line = mask->runs[i].line, start = mask->runs[i].start, left = mask->runs[i].length;
        for (; left > 0; line++, start = 0) {
            int64_t final = left < height - start ? start + left - 1 : height - 1; /* the run's last pixel here */
            int64_t column = start >> 6, last_column = final >> 6;
            uint64_t *word = plane + (column - box.low) * stride + (line - box.first);
            uint64_t head = ~(uint64_t)0 << (start & 63), tail = ~(uint64_t)0 >> (63 - (final & 63));
            left -= final - start + 1;
            if (column == last_column) {
                *word |= head & tail;
                continue;
            }
            *word |= head;
            for (column++; column < last_column; column++) *(word += stride) = ~(uint64_t)0;
            *(word += stride) |= tail;
        }
    }
}

/* ----------------------------------------------------------------------------------------------- byte arrays */
/* Bit i of the result: whether bytes[i] is not zero. */
INLINE uint64_t pack64(const unsigned char *bytes) {
#if HAVE_SSE2
    const __m128i zero = _mm_setzero_si128();
    __m128i part[4];
    uint64_t background = 0;
    for (int i = 0; i < 4; i++) part[i] = _mm_loadu_si128((const __m128i *)(bytes + 16 * i));
    __m128i any = _mm_or_si128(_mm_or_si128(part[0], part[1]), _mm_or_si128(part[2], part[3]));
    if (_mm_movemask_epi8(_mm_cmpeq_epi8(any, zero)) == 0xFFFF) return 0; /* most of a frame */
    for (int i = 0; i < 4; i++)
        background |= (uint64_t)(unsigned)_mm_movemask_epi8(_mm_cmpeq_epi8(part[i], zero)) << (16 * i);
    return ~background;
#else
    uint64_t word = 0;
    for (int i = 0; i < 8; i++, bytes += 8) {
        uint64_t eight = 0;
        for (int k = 0; k < 8; k++) eight |= (uint64_t)bytes[k] << (8 * k); /* compiles to one load */
        if (eight == 0) continue;
        /* the top bit of each byte says "not zero"; the product gathers the eight bits into the top byte */
        eight = ((eight & 0x7F7F7F7F7F7F7F7Fu) + 0x7F7F7F7F7F7F7F7Fu) | eight;
        eight = (eight >> 7) & 0x0101010101010101u;
        word |= ((eight * 0x0102040810204080u) >> 56) << (8 * i);
    }
    return word;
#endif
}

/* Pack a mask into the plane of a frame that covers the whole image, and return its area. */
INLINE int64_t pack_plane(const unsigned char *bytes, int64_t lines, int64_t along, uint64_t *plane, int64_t stride,
                          Box *box) {
    int64_t area = 0;
    for (int64_t line = 0; line < lines; line++) {
        for (int64_t column = 0, left = along; left > 0; column++, left -= 64) {
            uint64_t word;
            if (left >= 64) {
                word = pack64(bytes);
                bytes += 64;
            } else {
                unsigned char padded[64] = {0};
                memcpy(padded, bytes, (size_t)left);
                word = pack64(padded);
                bytes += left;
            }
            if (word == 0) continue;
            plane[column * stride + line] = word;
            area += POPCOUNT(word);
            *box = unite(*box, (Box){line - (line > 0), line, column - (column > 0), column});
        }
    }
    return area;
}

/* ------------------------------------------------------------------------------------------------- the kernel */
#define LOAD(tile, address) memcpy(&(tile), (address), sizeof(Tile))
#define STORE(address, tile) memcpy((address), &(tile), sizeof(Tile))

INLINE uint64_t any_of(const Tile *tile) {
    uint64_t lane[LANES], any = 0;
    memcpy(lane, tile, sizeof lane);
    for (int i = 0; i < LANES; i++) any |= lane[i];
    return any;
}

INLINE int64_t count_of(const Tile *tile) {
    uint64_t lane[LANES];
    int64_t count = 0;
    memcpy(lane, tile, sizeof lane);
    for (int i = 0; i < LANES; i++) count += POPCOUNT(lane[i]);
    return count;
}

INLINE int64_t count_common(const Frame *frame) {
    int64_t count = 0;
    for (int64_t column = 0; column < frame->columns; column++) {
        const uint64_t *pred = frame->planes[0] + column * frame->stride;
        const uint64_t *ref = frame->planes[1] + column * frame->stride;
        for (int64_t line = 0; line < frame->lines; line++) count += POPCOUNT(pred[line] & ref[line]);
    }
    return count;
}

/* Replace a mask by its boundary: the pixels that differ from their neighbour one further along the line, on the
 * next line, or both; at a line's last pixel and on the last line the neighbour is the pixel's own value. */
INLINE void to_boundary(const Frame *frame, uint64_t *plane) {
    for (int64_t column = 0; column < frame->columns; column++) {
        uint64_t *own = plane + column * frame->stride, *next = own + frame->stride;
        uint64_t edge = column == frame->columns - 1 ? frame->last_pixel : 0;
        if (frame->at_last_line) { /* a copy behind the last line, in the next column too for its part of the carry */
            own[frame->lines] = own[frame->lines - 1];
            next[frame->lines] = next[frame->lines - 1];
        }
        for (int64_t line = 0; line < frame->lines; line += LANES) {
            Tile here, below, carry, carry_below, along, diagonal;
            LOAD(here, own + line);
            LOAD(below, own + line + 1);
            LOAD(carry, next + line);
            LOAD(carry_below, next + line + 1);
            along = (here >> 1) | (carry << 63) | (here & edge);
            diagonal = (below >> 1) | (carry_below << 63) | (below & edge);
            here = (here ^ along) | (here ^ below) | (here ^ diagonal);
            STORE(own + line, here);
        }
        for (int i = 0; i < LANES; i++) own[frame->lines + i] = 0; /* the copy, and what the last tile wrote */
    }
}

/* Add to `found` the pixels within the disk round a pixel of the tile at `source`, which lies `pixels_away` along the
 * line towards its end (side 1) or its start (side -1), or is the tile itself (side 0).
 *
 * The disk is the union over k = 0..radius of the segments, across lines -reach[k]..reach[k], at the distance k along
 * the line on either side. From k = radius down to 0 the segments only grow: one accumulator serves them all. */
INLINE void add_disks(const uint64_t *source, const Disk *disk, int pixels_away, int side, Tile *found) {
    int k = disk->radius < pixels_away + 63 ? disk->radius : pixels_away + 63;
    int grown = -1;
    Tile segment = {0}, other;
    for (; k >= 0 && k > pixels_away - 64; k--) {
        while (grown < disk->reach[k]) {
            grown++;
            LOAD(other, source + grown);
            segment |= other;
            LOAD(other, source - grown);
            segment |= other;
        }
        if (side == 0)
            *found |= (segment << k) | (segment >> k);
        else if ((side > 0) == (k <= pixels_away))
            *found |= segment << (k <= pixels_away ? pixels_away - k : k - pixels_away);
        else
            *found |= segment >> (k <= pixels_away ? pixels_away - k : k - pixels_away);
    }
}

/* The pixels of a tile that lie within the disk round any pixel of `plane`, as far as `wanted` asks for them. */
INLINE void within_disk(const Frame *frame, const uint64_t *plane, int64_t column, int64_t line, const Disk *disk,
                        uint64_t wanted, Tile *result) {
    const uint64_t *tile = plane + column * frame->stride + line;
    const int radius = disk->radius;
    Tile found = {0};
    add_disks(tile, disk, 0, 0, &found);
    for (int away = 1; away <= (radius + 63) / 64; away++) {
        /* Few pixels lie so close to the end of their word that the next one matters. */
        if (column >= away && (radius >= 64 || wanted << (64 - radius)))
            add_disks(tile - away * frame->stride, disk, 64 * away, -1, &found);
        if (column + away < frame->columns && (radius >= 64 || wanted >> (64 - radius)))
            add_disks(tile + away * frame->stride, disk, 64 * away, 1, &found);
    }
    *result = found;
}

/* How many boundary pixels of one mask lie within the disk round a boundary pixel of the other. */
INLINE void match(const Frame *frame, const uint64_t *mine, const uint64_t *theirs, const Disk *disk,
                  int64_t *boundary_count, int64_t *matched_count) {
    for (int64_t column = 0; column < frame->columns; column++) {
        for (int64_t line = 0; line < frame->lines; line += LANES) {
            Tile boundary, other;
            LOAD(boundary, mine + column * frame->stride + line);
            if (any_of(&boundary) == 0) continue;
            *boundary_count += count_of(&boundary);
            LOAD(other, theirs + column * frame->stride + line);
            other = boundary & ~other;
            if (any_of(&other) != 0) {
                within_disk(frame, theirs, column, line, disk, any_of(&other), &other);
                boundary &= other;
            }
            *matched_count += count_of(&boundary);
        }
    }
}

INLINE void count_frame(const Frame *frame, const Disk *disk, int64_t *counts) {
    uint64_t *pred = frame->planes[0], *ref = frame->planes[1];
    counts[INTERSECTION] = count_common(frame);
    to_boundary(frame, pred);
    to_boundary(frame, ref);
    match(frame, pred, ref, disk, &counts[PRED_BOUNDARY], &counts[PRED_MATCHED]);
    match(frame, ref, pred, disk, &counts[REF_BOUNDARY], &counts[REF_MATCHED]);
}

/* ------------------------------------------------------------------------------------------ from input to counts */
typedef struct {
    int64_t height, width;
    Py_ssize_t pairs;
    const Counts *texts;                 /* predicted and reference in turn; NULL: one pair of byte arrays */
    const unsigned char *bytes[2];
    char *results;                       /* pairs * FIELDS int64 */
    Py_ssize_t failed;                   /* index in texts of the mask to blame */
} Task;

INLINE Status count_rle(Task *task, Py_ssize_t pair, const Disk *disk, Workspace *space, int64_t *counts) {
    Runs masks[2];
    Frame frame;
    Box box;
    for (int i = 0; i < 2; i++) {
        Status status;
        task->failed = 2 * pair + i;
        status = parse_counts(task->texts[2 * pair + i], task->height, task->width, space, i, &masks[i]);
        if (status != OK) return status;
        counts[PRED_AREA + i] = masks[i].area;
    }
    box = unite(masks[0].box, masks[1].box);
    if (box.last < 0) return OK;
    if (make_frame(space, box, task->width, task->height, disk, &frame) != OK) return NO_MEMORY;
    for (int i = 0; i < 2; i++) draw_runs(&masks[i], frame.planes[i], frame.stride, box, task->height);
    count_frame(&frame, disk, counts);
    return OK;
}

INLINE Status count_bytes(const Task *task, const Disk *disk, Workspace *space, int64_t *counts) {
    const int64_t lines = task->height, along = task->width;
    const Box image = {0, lines - 1, 0, (along - 1) >> 6};
    Frame frame;
    Box box = NOTHING;
    if (lines == 0 || along == 0) return OK;
    if (make_frame(space, image, lines, along, disk, &frame) != OK) return NO_MEMORY;
    for (int i = 0; i < 2; i++)
        counts[PRED_AREA + i] = pack_plane(task->bytes[i], lines, along, frame.planes[i], frame.stride, &box);
    if (box.last < 0) return OK;
    for (int i = 0; i < 2; i++) frame.planes[i] += box.low * frame.stride + box.first;
    set_window(&frame, box, lines, along);
    count_frame(&frame, disk, counts);
    return OK;
}

INLINE Status run_task(Task *task) {
    Workspace space = {0};
    Status status = OK;
    Disk disk;
    make_disk(task->height, task->width, &disk);
    for (Py_ssize_t pair = 0; pair < task->pairs && status == OK; pair++) {
        int64_t counts[FIELDS] = {0};
        if (task->texts != NULL)
            status = count_rle(task, pair, &disk, &space, counts);
        else
            status = count_bytes(task, &disk, &space, counts);
        memcpy(task->results + pair * (Py_ssize_t)sizeof counts, counts, sizeof counts);
    }
    free(space.words);
    free(space.runs[0]);
    free(space.runs[1]);
    return status;
}

static Status run_anywhere(Task *task) { return run_task(task); }

#if defined(__GNUC__) && defined(__x86_64__)
/* The same source for a newer instruction set. Not target_clones: that needs ifunc, which musl and macOS lack. */
__attribute__((target("avx2,bmi,bmi2,popcnt"))) static Status run_with_avx2(Task *task) { return run_task(task); }

static Status run(Task *task) {
    int newer = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("bmi2") && __builtin_cpu_supports("popcnt");
    return newer ? run_with_avx2(task) : run_anywhere(task);
}
#else
static Status run(Task *task) { return run_anywhere(task); }
#endif

/* ------------------------------------------------------------------------------------------------- the module */
/* Run without the GIL. Returns -1 with an exception set when a mask is malformed. */
static int run_released(Task *task, int is_clip) {
    Status status;
    const char *side;
    Py_BEGIN_ALLOW_THREADS
    status = run(task);
    Py_END_ALLOW_THREADS
    if (status == OK) return 0;
    side = task->failed % 2 ? "reference" : "predicted";
    if (status == NO_MEMORY)
        PyErr_NoMemory();
    else if (is_clip)
        PyErr_Format(PyExc_ValueError, "%s mask %zd: %s", side, task->failed / 2, REASONS[status]);
    else
        PyErr_Format(PyExc_ValueError, "%s mask: %s", side, REASONS[status]);
    return -1;
}

static int set_size(Task *task, long long height, long long width) {
    task->height = height;
    task->width = width;
    if (height >= 0 && width >= 0 && height <= MAX_SIDE && width <= MAX_SIDE && height * width <= MAX_PIXELS) return 0;
    PyErr_Format(PyExc_ValueError, "impossible mask size %lld x %lld", height, width);
    return -1;
}

/* The object must outlive the result; bytes and str do not change. */
static int read_counts(PyObject *object, Counts *counts) {
    Py_ssize_t length = 0;
    counts->text = NULL;
    if (PyBytes_Check(object)) {
        counts->text = (const unsigned char *)PyBytes_AS_STRING(object);
        length = PyBytes_GET_SIZE(object);
    } else if (PyUnicode_Check(object)) {
        counts->text = (const unsigned char *)PyUnicode_AsUTF8AndSize(object, &length);
        if (counts->text == NULL) { /* a lone surrogate, or no memory */
            if (!PyErr_ExceptionMatches(PyExc_UnicodeError)) return -1;
            PyErr_Clear();
            counts->text = (const unsigned char *)"\xff"; /* for parse_counts() to refuse, which knows the mask */
            length = 1;
        }
    } else if (object != Py_None) {
        PyErr_Format(PyExc_TypeError, "RLE counts must be bytes, str or None, not %.100s", Py_TYPE(object)->tp_name);
        return -1;
    }
    counts->length = (size_t)length;
    return 0;
}

static int read_pixels(PyObject *object, const Task *task, Py_buffer *view) {
    if (PyObject_GetBuffer(object, view, PyBUF_C_CONTIGUOUS) < 0) {
        if (PyErr_ExceptionMatches(PyExc_BufferError) || PyErr_ExceptionMatches(PyExc_ValueError)) /* numpy's */
            PyErr_SetString(PyExc_ValueError, "a mask buffer must be C-contiguous");
        return -1;
    }
    if (view->itemsize == 1 && view->len == task->height * task->width) return 0;
    PyErr_Format(PyExc_ValueError, "a mask buffer must hold %lld pixels of one byte, this holds %zd bytes, %zd a pixel",
                 (long long)(task->height * task->width), view->len, view->itemsize);
    PyBuffer_Release(view);
    return -1;
}

static PyObject *as_tuple(const int64_t *counts) {
    return Py_BuildValue("(LLLLLLL)", (long long)counts[0], (long long)counts[1], (long long)counts[2],
                         (long long)counts[3], (long long)counts[4], (long long)counts[5], (long long)counts[6]);
}

PyDoc_STRVAR(pair_rle_doc,
"pair_rle(pred_counts, ref_counts, height, width, /)\n--\n\n"
"The seven counts of a pair of COCO counts strings (bytes or ASCII str; None: an empty mask), a tuple of int:\n"
"pred_area, ref_area, intersection, pred_boundary, ref_boundary, pred_matched, ref_matched.\n"
"Raises ValueError when a string is malformed or does not cover height x width pixels.");

static PyObject *pair_rle(PyObject *module, PyObject *arguments) {
    PyObject *pred, *ref;
    long long height, width;
    int64_t counts[FIELDS];
    Counts texts[2];
    Task task = {.pairs = 1, .texts = texts, .results = (char *)counts};
    (void)module;
    if (!PyArg_ParseTuple(arguments, "OOLL:pair_rle", &pred, &ref, &height, &width) ||
        set_size(&task, height, width) < 0 || read_counts(pred, &texts[0]) < 0 || read_counts(ref, &texts[1]) < 0 ||
        run_released(&task, 0) < 0)
        return NULL;
    return as_tuple(counts);
}

PyDoc_STRVAR(pair_bytes_doc,
"pair_bytes(pred, ref, height, width, /)\n--\n\n"
"The same seven counts for two C-contiguous buffers of height x width one-byte pixels, non-zero is foreground.\n"
"Raises ValueError when a buffer has another size or form.");

static PyObject *pair_bytes(PyObject *module, PyObject *arguments) {
    PyObject *pred, *ref;
    long long height, width;
    int64_t counts[FIELDS];
    Py_buffer views[2];
    Task task = {.pairs = 1, .results = (char *)counts};
    int failed;
    (void)module;
    if (!PyArg_ParseTuple(arguments, "OOLL:pair_bytes", &pred, &ref, &height, &width) ||
        set_size(&task, height, width) < 0 || read_pixels(pred, &task, &views[0]) < 0)
        return NULL;
    if (read_pixels(ref, &task, &views[1]) < 0) {
        PyBuffer_Release(&views[0]);
        return NULL;
    }
    for (int i = 0; i < 2; i++) task.bytes[i] = views[i].buf;
    failed = run_released(&task, 0) < 0;
    for (int i = 0; i < 2; i++) PyBuffer_Release(&views[i]);
    return failed ? NULL : as_tuple(counts);
}

PyDoc_STRVAR(clip_rle_doc,
"clip_rle(preds, refs, height, width, /)\n--\n\n"
"pair_rle for every pair of two sequences of one length, as bytes of native int64 [n, 7].\n"
"Raises ValueError naming the first malformed string, for example \"reference mask 3: ...\".");

static PyObject *clip_rle(PyObject *module, PyObject *arguments) {
    const Py_ssize_t row = (Py_ssize_t)(FIELDS * sizeof(int64_t));
    PyObject *preds, *refs, *masks[2] = {NULL, NULL}, *result = NULL;
    long long height, width;
    Counts *texts = NULL;
    Task task = {0};
    (void)module;
    if (!PyArg_ParseTuple(arguments, "OOLL:clip_rle", &preds, &refs, &height, &width) ||
        set_size(&task, height, width) < 0)
        return NULL;
    /* Nobody can take a mask out of a tuple while the GIL is released. */
    if ((masks[0] = PySequence_Tuple(preds)) == NULL || (masks[1] = PySequence_Tuple(refs)) == NULL) goto end;
    task.pairs = PyTuple_GET_SIZE(masks[0]);
    if (task.pairs != PyTuple_GET_SIZE(masks[1])) {
        PyErr_Format(PyExc_ValueError, "a clip needs two masks a frame: %zd predicted, %zd reference", task.pairs,
                     PyTuple_GET_SIZE(masks[1]));
        goto end;
    }
    texts = task.pairs > PY_SSIZE_T_MAX / row ? NULL : PyMem_New(Counts, (size_t)task.pairs * 2);
    if (texts == NULL) {
        PyErr_NoMemory();
        goto end;
    }
    for (Py_ssize_t i = 0; i < 2 * task.pairs; i++)
        if (read_counts(PyTuple_GET_ITEM(masks[i % 2], i / 2), &texts[i]) < 0) goto end;
    result = PyBytes_FromStringAndSize(NULL, task.pairs * row);
    if (result == NULL) goto end;
    task.texts = texts;
    task.results = PyBytes_AS_STRING(result);
    if (run_released(&task, 1) < 0) Py_CLEAR(result);
end:
    PyMem_Free(texts);
    Py_XDECREF(masks[0]);
    Py_XDECREF(masks[1]);
    return result;
}

static PyMethodDef methods[] = {
    {"pair_rle", pair_rle, METH_VARARGS, pair_rle_doc},
    {"pair_bytes", pair_bytes, METH_VARARGS, pair_bytes_doc},
    {"clip_rle", clip_rle, METH_VARARGS, clip_rle_doc},
    {NULL, NULL, 0, NULL},
};

static PyModuleDef_Slot slots[] = {
#ifdef Py_mod_multiple_interpreters
    {Py_mod_multiple_interpreters, Py_MOD_PER_INTERPRETER_GIL_SUPPORTED},
#endif
#ifdef Py_mod_gil
    {Py_mod_gil, Py_MOD_GIL_NOT_USED},
#endif
    {0, NULL},
};

static struct PyModuleDef definition = {
    .m_base = PyModuleDef_HEAD_INIT,
    .m_name = "evqa.scoring._native",
    .m_doc = "Pixel counts behind J and F, in C; use evqa.scoring.kernel.",
    .m_methods = methods,
    .m_slots = slots,
};

PyMODINIT_FUNC PyInit__native(void);
PyMODINIT_FUNC PyInit__native(void) { return PyModuleDef_Init(&definition); }
