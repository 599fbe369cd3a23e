/* A model from a native GGUF file, as `bitnet-lut convert --type tl5` writes it, without Python: ternary matrices of
 * type TL5 or I2_S, and dense ones as plain rows or strips. */
#ifndef BL_NATIVE_H
#define BL_NATIVE_H

#include "bitnet_lut/bitnet_lut.h"
#include "gguf.h"

enum { BL_NATIVE_ERROR = 200 };

typedef struct {
    bl_model model;
    bl_gguf file;
    char prefix[64]; /* of keys: the architecture */
    bl_layer *layers;
    uint64_t tensors_read;       /* the file must have no others */
    const uint8_t **pieces;      /* (vocab) strings of the vocabulary, each after its length in 8 bytes */
    void *kept;                  /* blocks of memory, each of which starts with a pointer to the next */
    char error[BL_NATIVE_ERROR]; /* what is wrong, where bl_native_open refuses a file */
} bl_native;

/* Whether the bytes of a file, which must stay, are a model. They start at a multiple of 64. *native is zero at first;
 * after either answer bl_native_close frees what was allocated. */
int bl_native_open(bl_native *native, const uint8_t *bytes, uint64_t size, const bl_tier *tier);
void bl_native_close(bl_native *native);

/* Memory until bl_native_close, zero at first, which starts at a multiple of 64. NULL, and an error, if there is none.
 */
void *bl_native_keep(bl_native *native, uint64_t bytes);

/* The piece of a token, *length bytes, as the file has it. */
const uint8_t *bl_native_piece(const bl_native *native, int32_t token, uint64_t *length);

#endif
