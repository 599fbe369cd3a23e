/* A GGUF file in memory: its keys and its tensors, found by name. Every length, count and offset is checked against the
 * size of the file, so that no file leads to a read beyond it. */
#ifndef BL_GGUF_H
#define BL_GGUF_H

#include <stdint.h>

enum {
    BL_GGUF_U32 = 4,
    BL_GGUF_F32 = 6,
    BL_GGUF_STRING = 8,
    BL_GGUF_ARRAY = 9,
    BL_GGUF_KINDS = 13,
    BL_GGUF_MOST_DIMS = 4
};

typedef struct {
    const uint8_t *bytes;
    uint64_t size;
    uint64_t key_count, tensor_count;
    uint64_t keys, tensors, data; /* offsets of both tables and of the tensors' data */
    uint64_t alignment;           /* of tensors, from data on */
} bl_gguf;

/* The value of a key. data of a string starts after its length; each string of an array is preceded by its length. */
typedef struct {
    uint32_t kind;    /* BL_GGUF_U32 ... */
    uint32_t element; /* of an array */
    uint64_t count;   /* elements of an array, bytes of a string */
    const uint8_t *data;
} bl_gguf_value;

typedef struct {
    uint32_t type, dims;
    uint64_t shape[BL_GGUF_MOST_DIMS]; /* fastest first: columns, then rows; 1 beyond dims */
    const uint8_t *data;
    uint64_t room; /* bytes from data to the end of the file */
} bl_gguf_tensor;

/* Returns NULL, or what is wrong with the file. */
const char *bl_gguf_open(bl_gguf *file, const uint8_t *bytes, uint64_t size);

/* Whether the file has a key, or a tensor whose data starts within it. */
int bl_gguf_key(const bl_gguf *file, const char *name, bl_gguf_value *value);
int bl_gguf_tensor_of(const bl_gguf *file, const char *name, bl_gguf_tensor *tensor);

#endif
