#include "gguf.h"

#include <string.h>

enum { BL_GGUF_DEFAULT_ALIGNMENT = 32 };

/* A place in a file. Once something is not there, nothing more is. */
typedef struct {
    const uint8_t *bytes;
    uint64_t size, at;
    int failed;
} bl_cursor;

static const uint8_t *take(bl_cursor *c, uint64_t bytes)
{
    if (c->failed || bytes > c->size - c->at) {
        c->failed = 1;
        return NULL;
    }
    c->at += bytes;
    return c->bytes + c->at - bytes;
}

static uint64_t take_number(bl_cursor *c, int bytes)
{
    uint64_t number = 0;
    const uint8_t *from = take(c, (uint64_t)bytes);
    for (int i = 0; from && i < bytes; i++) number |= (uint64_t)from[i] << 8 * i;
    return number;
}

/* Bytes of a string, whose number goes to *length. */
static const uint8_t *take_string(bl_cursor *c, uint64_t *length)
{
    *length = take_number(c, 8);
    return take(c, *length);
}

static void take_array(bl_cursor *c, uint64_t element_bytes, bl_gguf_value *value)
{
    value->element = (uint32_t)take_number(c, 4);
    value->count = take_number(c, 8);
    value->data = c->bytes + c->at;
    if (value->element == BL_GGUF_STRING) {
        uint64_t length;
        for (uint64_t i = 0; i < value->count && !c->failed; i++) take_string(c, &length);
    } else if (!element_bytes || value->count > (c->size - c->at) / element_bytes) {
        c->failed = 1;
    } else {
        take(c, value->count * element_bytes);
    }
}

static bl_gguf_value take_value(bl_cursor *c)
{
    static const uint8_t sizes[BL_GGUF_KINDS] = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};
    bl_gguf_value value = {.kind = (uint32_t)take_number(c, 4)};
    if (value.kind == BL_GGUF_STRING) {
        value.data = take_string(c, &value.count);
    } else if (value.kind == BL_GGUF_ARRAY) {
        const bl_cursor ahead = *c;
        const uint64_t element = take_number(c, 4);
        *c = ahead;
        take_array(c, element < BL_GGUF_KINDS ? sizes[element] : 0, &value);
    } else if (value.kind < BL_GGUF_KINDS) {
        value.data = take(c, sizes[value.kind]);
    } else {
        c->failed = 1;
    }
    return value;
}

static bl_gguf_tensor take_tensor(bl_cursor *c, uint64_t *offset)
{
    bl_gguf_tensor tensor = {.dims = (uint32_t)take_number(c, 4), .shape = {1, 1, 1, 1}};
    if (tensor.dims > BL_GGUF_MOST_DIMS) c->failed = 1;
    for (uint32_t d = 0; d < tensor.dims && !c->failed; d++) tensor.shape[d] = take_number(c, 8);
    tensor.type = (uint32_t)take_number(c, 4);
    *offset = take_number(c, 8);
    return tensor;
}

static int is_name(const uint8_t *text, uint64_t length, const char *name)
{
    return text && length == strlen(name) && memcmp(text, name, length) == 0;
}

int bl_gguf_key(const bl_gguf *file, const char *name, bl_gguf_value *value)
{
    bl_cursor c = {file->bytes, file->size, file->keys, 0};
    for (uint64_t i = 0; i < file->key_count; i++) {
        uint64_t length;
        const uint8_t *key = take_string(&c, &length);
        *value = take_value(&c);
        if (c.failed) return 0;
        if (is_name(key, length, name)) return 1;
    }
    return 0;
}

int bl_gguf_tensor_of(const bl_gguf *file, const char *name, bl_gguf_tensor *tensor)
{
    bl_cursor c = {file->bytes, file->size, file->tensors, 0};
    for (uint64_t i = 0; i < file->tensor_count; i++) {
        uint64_t length, offset;
        const uint8_t *found = take_string(&c, &length);
        *tensor = take_tensor(&c, &offset);
        if (c.failed) return 0;
        if (!is_name(found, length, name)) continue;
        if (offset % file->alignment || offset > file->size - file->data) return 0;
        tensor->room = file->size - file->data - offset;
        tensor->data = file->bytes + file->data + offset;
        return 1;
    }
    return 0;
}

/* Set file->alignment, and the start of the data after a table that ends here. Returns whether both are in order. */
static int find_data(bl_gguf *file, uint64_t end)
{
    bl_gguf_value value;
    file->alignment = BL_GGUF_DEFAULT_ALIGNMENT;
    if (bl_gguf_key(file, "general.alignment", &value)) {
        if (value.kind != BL_GGUF_U32) return 0;
        file->alignment = (uint64_t)value.data[0] | (uint64_t)value.data[1] << 8;
        if (value.data[2] || value.data[3]) return 0;
    }
    if (file->alignment < 8 || file->alignment & (file->alignment - 1)) return 0;
    file->data = (end + file->alignment - 1) / file->alignment * file->alignment;
    if (file->data > file->size) file->data = file->size; /* of a file without tensors */
    return 1;
}

const char *bl_gguf_open(bl_gguf *file, const uint8_t *bytes, uint64_t size)
{
    bl_cursor c = {bytes, size, 0, 0};
    const uint8_t *magic = take(&c, 4);
    *file = (bl_gguf){.bytes = bytes, .size = size};
    if (!magic || memcmp(magic, "GGUF", 4)) return "this is not a GGUF file";
    const uint64_t version = take_number(&c, 4);
    if (version != 2 && version != 3) return "only versions 2 and 3 of GGUF are supported";
    file->tensor_count = take_number(&c, 8);
    file->key_count = take_number(&c, 8);
    file->keys = c.at;
    for (uint64_t i = 0, length; i < file->key_count && !c.failed; i++) {
        take_string(&c, &length);
        take_value(&c);
    }
    if (c.failed) return "the table of keys is damaged or ends early";
    file->tensors = c.at;
    for (uint64_t i = 0, length, offset; i < file->tensor_count && !c.failed; i++) {
        take_string(&c, &length);
        take_tensor(&c, &offset);
    }
    if (c.failed) return "the table of tensors is damaged or ends early";
    return find_data(file, c.at) ? NULL : "general.alignment must be a power of two from 8 to 32768";
}
