/* Corrects GCC's intrinsics for AMX tiles; given to the compiler with -include for every file.
 *
 * The hardware reads 64 bytes of tile configuration and whole tiles through a pointer. GCC's
 * own <amxtileintrin.h> tells its optimizer of 8 bytes of the configuration and of no memory
 * at all for the tiles, so the stores that fill them may be dropped or moved behind the
 * instruction: a native build of llama.cpp then dies at its first quantized matrix product
 * (llama.cpp issue 20824). Here every such instruction names 64 bytes or clobbers memory.
 *
 * Nothing happens for other compilers, other machines, and files compiled without AMX.
 */
#if defined(__GNUC__) && !defined(__clang__) && defined(__x86_64__) && defined(__AMX_TILE__)

#include <immintrin.h>

struct ollama_async_tile_config {
    unsigned char bytes[64];
} __attribute__((__may_alias__));

#undef _tile_loadconfig
#define _tile_loadconfig(config)                                           \
    __asm__ volatile("ldtilecfg\t%X0"                                      \
                     :                                                     \
                     : "m"(*(const struct ollama_async_tile_config *)(config)) \
                     : "memory")

#undef _tile_storeconfig
#define _tile_storeconfig(config)                                     \
    __asm__ volatile("sttilecfg\t%X0"                                 \
                     : "=m"(*(struct ollama_async_tile_config *)(config)) \
                     :                                                \
                     : "memory")

/* Two levels, because a tile may be named by a macro (TMM0) that must be expanded before its
 * number is pasted into the instruction. */
#define ollama_async_tile_load(instruction, tile, base, stride)                     \
    __asm__ volatile("{" instruction "\t(%0,%1,1), %%tmm" #tile "|" instruction     \
                     "\t%%tmm" #tile ", [%0+%1*1]}"                                 \
                     :                                                              \
                     : "r"((const void *)(base)), "r"((long)(stride))               \
                     : "memory")

#undef _tile_loadd
#undef _tile_loadd_internal
#define _tile_loadd(tile, base, stride) _tile_loadd_internal(tile, base, stride)
#define _tile_loadd_internal(tile, base, stride) \
    ollama_async_tile_load("tileloadd", tile, base, stride)

#undef _tile_stream_loadd
#undef _tile_stream_loadd_internal
#define _tile_stream_loadd(tile, base, stride) _tile_stream_loadd_internal(tile, base, stride)
#define _tile_stream_loadd_internal(tile, base, stride) \
    ollama_async_tile_load("tileloaddt1", tile, base, stride)

#endif
