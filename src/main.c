/* Greedy text from a native GGUF file, without Python:
 *
 *   bitnet-lut-native MODEL.gguf IDS COUNT [THREADS]
 *
 * IDS is a prompt as ids with commas between them, such as 0,261,7. Prints the ids of COUNT tokens on one line, then
 * their text. Exit status 1 with a message on standard error if something is wrong, 2 for wrong arguments. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "check.h"
#include "native.h"
#include "pool.h"

enum { MOST_THREADS = 1024 };

static void stop(const char *name, const char *fault)
{
    fprintf(stderr, "bitnet-lut-native: %s: %s\n", name, fault);
    exit(1);
}

static bl_native native;

static void free_all(void) { bl_native_close(&native); }

/* Memory until the end that starts at a cache line. */
static void *memory(int64_t bytes)
{
    void *block = bl_native_keep(&native, (uint64_t)bytes);
    if (!block) stop("memory", native.error);
    return block;
}

/* The bytes of a whole file. */
static uint8_t *read_file(const char *path, int64_t *size)
{
    FILE *file = fopen(path, "rb");
    if (!file) stop(path, "it cannot be opened");
    if (fgetc(file) == EOF) stop(path, "it is empty, or not a file"); /* a folder opens, but has no byte to read */
    if (fseek(file, 0, SEEK_END) || (*size = ftell(file)) < 0) stop(path, "its size cannot be found");
    rewind(file);
    uint8_t *bytes = memory(*size);
    if (fread(bytes, 1, (size_t)*size, file) != (size_t)*size) stop(path, "it cannot be read");
    fclose(file);
    return bytes;
}

/* The best tier that this processor has and that gives the scalar tier's results here. */
static const bl_tier *choose_tier(void)
{
    bl_check_input *in = memory(sizeof *in);
    bl_check_output *out = memory(2 * (int64_t)sizeof *out);
    for (int i = 0, fault; i < bl_tier_count; i++)
        if (!(bl_tiers[i]->needs & ~bl_cpu()) && bl_tier_proves(bl_tiers[i], in, out, &fault) == 1) return bl_tiers[i];
    return &bl_tier_scalar;
}

/* A whole text as a number in 1..most; 0 if it is something else. */
static long read_number(const char *text, long most)
{
    char *end;
    const long number = strtol(text, &end, 10);
    return end == text || *end || number < 1 || number > most ? 0 : number;
}

/* ids (most) from a text such as 1,2,3. Returns how many; 0 if the text is something else or an id is outside the
 * vocabulary. */
static int64_t read_ids(const char *text, int64_t vocab, int32_t *ids, int64_t most)
{
    int64_t count = 0;
    for (;;) {
        char *end;
        const long id = strtol(text, &end, 10);
        if (end == text || id < 0 || id >= vocab || count == most) return 0;
        ids[count++] = (int32_t)id;
        if (!*end) return count;
        if (*end != ',') return 0;
        text = end + 1;
    }
}

/* Run ids on a cache, a batch at a time; logits (vocab) get those of the last. */
static void run(bl_pool *pool, bl_workspace *workspace, bl_cache *cache, const int32_t *ids, int64_t n, float *logits)
{
    const int64_t last = n - 1;
    bl_chunk chunk = {cache, ids, n, 0};
    const bl_step step = {.model = &native.model,
                          .workspace = workspace,
                          .pool = pool,
                          .chunks = &chunk,
                          .chunk_count = 1,
                          .rows = &last,
                          .row_count = 1,
                          .logits = logits};
    bl_forward(&step);
    if (!chunk.finite) stop("the model", "its results are not finite");
    cache->position += n;
}

static int32_t greatest(const float *logits, int64_t vocab)
{
    int64_t best = 0;
    for (int64_t i = 1; i < vocab; i++)
        if (logits[i] > logits[best]) best = i;
    return (int32_t)best;
}

/* Print a piece in which bytes stand as the characters that GPT-2 has for them; others as they are. */
static void print_piece(const uint8_t *piece, uint64_t length)
{
    for (uint64_t i = 0; i < length; i++) {
        int c = piece[i];
        if (c >= 0xc3 && c <= 0xc5 && i + 1 < length) { /* U+00C0 to U+017F, in two bytes */
            c = (c & 31) << 6 | (piece[++i] & 63);
            if (c >= 256 && c < 256 + 68) { /* the 68 bytes that have no character of their own, in order */
                const int hidden = c - 256;
                c = hidden < 33 ? hidden : hidden < 67 ? hidden - 33 + 127 : 173;
            }
        } else if (c == 0xc2 && i + 1 < length) {
            c = piece[++i];
        }
        putchar(c & 255);
    }
}

static void generate(bl_pool *pool, int32_t *ids, int64_t prompt, int64_t count)
{
    const bl_model *m = &native.model;
    const int64_t context = prompt + count;
    bl_cache cache;
    bl_workspace workspace;
    float *logits = memory(m->vocab * (int64_t)sizeof *logits);
    bl_cache_place(&cache, m, BL_KV_F16, context, memory(bl_cache_bytes(m, BL_KV_F16, context)));
    bl_workspace_place(&workspace, m, context, m->tier->batch, pool->workers,
                       memory(bl_workspace_bytes(m, context, m->tier->batch, pool->workers)));
    run(pool, &workspace, &cache, ids, prompt, logits);
    for (int64_t i = 0; i < count; i++) {
        int32_t *next = &ids[prompt + i];
        *next = greatest(logits, m->vocab);
        printf("%d%c", (int)*next, i + 1 < count ? ' ' : '\n');
        if (i + 1 < count) run(pool, &workspace, &cache, next, 1, logits);
    }
    for (int64_t i = 0; i < count; i++) {
        uint64_t length;
        const uint8_t *piece = bl_native_piece(&native, ids[prompt + i], &length);
        print_piece(piece, length);
    }
    putchar('\n');
}

int main(int argument_count, char **arguments)
{
    if (argument_count < 4 || argument_count > 5) {
        fputs("usage: bitnet-lut-native MODEL.gguf IDS COUNT [THREADS]\n", stderr);
        return 2;
    }
    static bl_pool pool;
    atexit(free_all);
    int64_t size;
    const char *path = arguments[1], *text = arguments[2];
    const long count = read_number(arguments[3], 1 << 20);
    const long threads = argument_count > 4 ? read_number(arguments[4], MOST_THREADS) : 1;
    const int64_t most = (int64_t)strlen(text) / 2 + 1;
    if (!count) stop("COUNT", "it must be a number in 1..1048576");
    if (!threads) stop("THREADS", "it must be a number in 1..1024");
    const uint8_t *bytes = read_file(path, &size);
    if (!bl_native_open(&native, bytes, (uint64_t)size, choose_tier())) stop(path, native.error);
    int32_t *ids = memory((most + count) * (int64_t)sizeof *ids);
    const int64_t prompt = read_ids(text, native.model.vocab, ids, most);
    if (!prompt) stop("IDS", "they must be ids of the vocabulary with commas between them");
    bl_pool_init(&pool, (int)threads);
    generate(&pool, ids, prompt, count);
    bl_pool_free(&pool);
    return 0;
}
