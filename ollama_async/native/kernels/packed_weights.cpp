#include "packed_weights.h"

#include <algorithm>
#include <array>
#include <cstring>

namespace own {

namespace {

// Where the fields of a block are in the file (llama.cpp's ggml-common.h). Counts are per block.
struct FileBlock {
    ggml_type type;
    int values;
    int bytes;
    int words, words_at;    // 32-bit words that are transposed as they are
    int halves, halves_at;  // 16-bit fields
    int octets, octets_at;  // 8-bit fields
    int plane_at;           // a 32-bit word of fifth bits; -1: none
    uint32_t flip;          // bits of the words that are inverted
};

constexpr uint32_t to_unsigned = 0x80808080;  // signed bytes, plus 128

constexpr std::array<FileBlock, 16> file_blocks = {{
    {GGML_TYPE_F32, 32, 128, 32, 0, 0, 0, 0, 0, -1, 0},
    {GGML_TYPE_F16, 32, 64, 0, 0, 32, 0, 0, 0, -1, 0},
    {GGML_TYPE_BF16, 32, 64, 0, 0, 32, 0, 0, 0, -1, 0},
    {GGML_TYPE_Q8_0, 32, 34, 8, 2, 1, 0, 0, 0, -1, to_unsigned},
    {GGML_TYPE_Q4_0, 32, 18, 4, 2, 1, 0, 0, 0, -1, 0},
    {GGML_TYPE_Q4_1, 32, 20, 4, 4, 2, 0, 0, 0, -1, 0},
    {GGML_TYPE_Q5_0, 32, 22, 4, 6, 1, 0, 0, 0, 2, 0},
    {GGML_TYPE_Q5_1, 32, 24, 4, 8, 2, 0, 0, 0, 4, 0},
    {GGML_TYPE_IQ4_NL, 32, 18, 4, 2, 1, 0, 0, 0, -1, 0},
    {GGML_TYPE_MXFP4, 32, 17, 4, 1, 0, 0, 1, 0, -1, 0},
    {GGML_TYPE_Q2_K, 256, 84, 21, 0, 0, 0, 0, 0, -1, 0},
    {GGML_TYPE_Q3_K, 256, 110, 27, 0, 1, 108, 0, 0, -1, 0},
    {GGML_TYPE_Q4_K, 256, 144, 36, 0, 0, 0, 0, 0, -1, 0},
    {GGML_TYPE_Q5_K, 256, 176, 44, 0, 0, 0, 0, 0, -1, 0},
    {GGML_TYPE_Q6_K, 256, 210, 52, 0, 1, 208, 0, 0, -1, 0},
    {GGML_TYPE_IQ4_XS, 256, 136, 34, 0, 0, 0, 0, 0, -1, 0},
}};

const FileBlock * find(ggml_type type) {
    for (const FileBlock & block : file_blocks) {
        if (block.type == type) {
            return &block;
        }
    }
    return nullptr;
}

size_t super_bytes(const FileBlock & block, int64_t blocks) {
    const size_t plane = block.plane_at < 0 ? 0 : 512;
    const size_t bytes =
        blocks * (block.words * 64 + block.halves * 32 + block.octets * 16) + plane;
    return (bytes + 63) / 64 * 64;
}

using Rows = std::array<const uint8_t *, group_rows>;  // one block of each row

template <typename Field>
uint8_t * transpose(const Rows & rows, int at, int count, uint32_t flip, uint8_t * out) {
    for (int each = 0; each < count; each++) {
        for (const uint8_t * row : rows) {
            Field field;
            std::memcpy(&field, row + at + each * sizeof(Field), sizeof(Field));
            field ^= static_cast<Field>(flip);
            std::memcpy(out, &field, sizeof(Field));
            out += sizeof(Field);
        }
    }
    return out;
}

// Eight bits as the lowest bits of eight bytes.
uint64_t spread(uint8_t bits) {
    const uint64_t seven = (bits & 0x7FU) * 0x0002040810204081U & 0x0101010101010101U;
    return seven | static_cast<uint64_t>(bits & 0x80U) << 49;
}

// The fifth bits of block `bit` of the super-block, into a plane that was zeros.
void add_to_plane(const Rows & rows, int at, int bit, uint8_t * plane) {
    for (int row = 0; row < group_rows; row++) {
        for (int each = 0; each < block_values / 8; each++) {
            const uint64_t eight = spread(rows[row][at + each]) << bit;
            for (int half = 0; half < 2; half++) {
                uint8_t * four = plane + (2 * each + half) * 64 + row * 4;
                uint32_t bytes;
                std::memcpy(&bytes, four, 4);
                bytes |= static_cast<uint32_t>(eight >> 32 * half);
                std::memcpy(four, &bytes, 4);
            }
        }
    }
}

constexpr std::array<uint8_t, 256> zeros = {};  // a block of a row that does not exist

// Pack `blocks` blocks of each row; `rows` move on to the blocks after them.
uint8_t * pack_super(const FileBlock & block, int blocks, Rows & rows, uint8_t * out) {
    uint8_t * const end = out + super_bytes(block, blocks);
    uint8_t * words = out;
    uint8_t * const plane = words + blocks * block.words * 64;
    uint8_t * halves = plane;
    if (block.plane_at >= 0) {
        std::memset(plane, 0, 512);
        halves += 512;
    }
    uint8_t * octets = halves + blocks * block.halves * 32;
    for (int each = 0; each < blocks; each++) {
        words = transpose<uint32_t>(rows, block.words_at, block.words, block.flip, words);
        halves = transpose<uint16_t>(rows, block.halves_at, block.halves, 0, halves);
        octets = transpose<uint8_t>(rows, block.octets_at, block.octets, 0, octets);
        if (block.plane_at >= 0) {
            add_to_plane(rows, block.plane_at, each, plane);
        }
        for (const uint8_t *& row : rows) {
            row += row == zeros.data() ? 0 : block.bytes;
        }
    }
    std::memset(octets, 0, end - octets);
    return end;
}

}  // namespace

bool has_packed_layout(ggml_type type, int64_t values) {
    const FileBlock * block = find(type);
    return block && values > 0 && values % block->values == 0;
}

size_t packed_group_bytes(ggml_type type, int64_t values) {
    const FileBlock & block = *find(type);
    const int64_t rest = values % super_values;
    const size_t full = super_bytes(block, super_values / block.values) * (values / super_values);
    return full + (rest ? super_bytes(block, rest / block.values) : 0);
}

void pack_group(ggml_type type, int64_t values, const uint8_t * data, int rows, uint8_t * group) {
    const FileBlock & block = *find(type);
    const int64_t blocks = values / block.values;
    Rows sources;
    for (int row = 0; row < group_rows; row++) {
        sources[row] = row < rows ? data + row * blocks * block.bytes : zeros.data();
    }
    const int64_t at_a_time = super_values / block.values;
    for (int64_t first = 0; first < blocks; first += at_a_time) {
        group = pack_super(block, std::min(at_a_time, blocks - first), sources, group);
    }
}

}  // namespace own
