// How the kernels read each packed format (packed_weights.h), on vectors of one instruction set.
//
// A format of quantized weights has
//   Block(super, blocks, b)   block b (32 values of 16 rows) of a super-block with so many blocks
//   Block::values(k)          values 4k to 4k + 3 of the 16 rows as unsigned bytes
//   decode_scales()           per block (`halves`: per half of a block) and row a scale and,
//                             with `minima`, a minimum
//   bits                      of the bytes: they are less than 2^bits
//   offset_bits               without minima: weight = scale * (byte - 2^offset_bits)
//                             with minima:    weight = scale * byte - minimum
// A format of floats has values(super, k): value k of the 16 rows.
//
// Include after a products_simd_*.h. Everything here has internal linkage: it is compiled once for
// each instruction set.
#pragma once

#include "packed_weights.h"

namespace own {
namespace {

enum : int { row_floats = group_rows, vector = 64 };

// Moves bit `from` of each byte to bit `to`; other bits may be anything. Two variable shifts,
// because rotations take the execution units of integer dot products.
struct BitShift {
    Ints left, right;
    BitShift(int from, int to)
        : left(all_words(from < to ? to - from : 0)), right(all_words(from > to ? from - to : 0)) {}
    OWN_INLINE Ints operator()(Ints v) const { return shift_right(shift_left(v, left), right); }
};

inline Ints low_nibbles(Ints v) {
    return bit_and(v, all_bytes(0x0F));
}

// --- Blocks of 32 values with scales of their own ------------------------------------------------

struct Q8_0 {
    static constexpr bool halves = false, minima = false;
    static constexpr int bits = 8, offset_bits = 7, block_bytes = 544;
    static int bytes(int blocks) { return (blocks * block_bytes + 63) / 64 * 64; }

    struct Block {
        const uint8_t * at;
        Block(const uint8_t * super, int, int b) : at(super + b * 8 * vector) {}
        Ints values(int k) const { return load_ints(at + k * vector); }
    };

    static void decode_scales(const uint8_t * super, int blocks, float * scales, float *) {
        for (int b = 0; b < blocks; b++) {
            store_floats(
                scales + b * row_floats, halves_to_floats(super + blocks * 8 * vector + b * 32));
        }
    }
};

// Four bits, and perhaps a fifth in a plane; a scale, and perhaps a minimum.
template <bool with_plane, bool with_minima, int offset> struct Nibbles {
    static constexpr bool halves = false, minima = with_minima;
    static constexpr int bits = with_plane ? 5 : 4, offset_bits = offset;
    static constexpr int block_bytes = 4 * vector + (with_plane ? vector : 0) + (minima ? 64 : 32);
    static constexpr int plane_bytes = with_plane ? 8 * vector : 0;

    static int bytes(int blocks) {
        return (blocks * (4 * vector + (minima ? 64 : 32)) + plane_bytes + 63) / 64 * 64;
    }

    struct Block {
        const uint8_t * at;
        const uint8_t * plane;
        BitShift to_fifth;

        Block(const uint8_t * super, int blocks, int b)
            : at(super + b * 4 * vector), plane(super + blocks * 4 * vector), to_fifth(b, 4) {}

        Ints values(int k) const {
            const Ints pairs = load_ints(at + k % 4 * vector);
            const Ints nibbles = k < 4 ? pairs : shift_right<4>(pairs);
            if constexpr (with_plane) {
                const Ints fifth = to_fifth(load_ints(plane + k * vector));
                return masked_or(nibbles, all_bytes(0x0F), bit_and(fifth, all_bytes(0x10)));
            }
            return low_nibbles(nibbles);
        }
    };

    static void decode_scales(const uint8_t * super, int blocks, float * scales, float * minimum) {
        const uint8_t * at = super + blocks * 4 * vector + plane_bytes;
        for (int b = 0; b < blocks; b++, at += minima ? 64 : 32) {
            store_floats(scales + b * row_floats, halves_to_floats(at));
            if constexpr (minima) {
                store_floats(minimum + b * row_floats, negate_floats(halves_to_floats(at + 32)));
            }
        }
    }
};

using Q4_0 = Nibbles<false, false, 3>;
using Q5_0 = Nibbles<true, false, 4>;
using Q4_1 = Nibbles<false, true, 0>;
using Q5_1 = Nibbles<true, true, 0>;

// Four bits that are an index into `table`; as unsigned bytes with offset 2^offset_bits.
template <class Table, bool with_exponents> struct Indices {
    static constexpr bool halves = false, minima = false;
    static constexpr int bits = Table::bits, offset_bits = Table::offset_bits;
    static constexpr int block_bytes = 4 * vector + (with_exponents ? 16 : 32);

    static int bytes(int blocks) { return (blocks * block_bytes + 63) / 64 * 64; }

    struct Block {
        const uint8_t * at;
        Ints table;
        Block(const uint8_t * super, int, int b)
            : at(super + b * 4 * vector), table(load_table(Table::entries)) {}

        Ints values(int k) const {
            const Ints pairs = load_ints(at + k % 4 * vector);
            return look_up(table, low_nibbles(k < 4 ? pairs : shift_right<4>(pairs)));
        }
    };

    static void decode_scales(const uint8_t * super, int blocks, float * scales, float *) {
        const uint8_t * at = super + blocks * 4 * vector;
        for (int b = 0; b < blocks; b++, at += with_exponents ? 16 : 32) {
            store_floats(
                scales + b * row_floats,
                with_exponents ? exponents_to_floats(at) : halves_to_floats(at));
        }
    }
};

struct NonLinearTable {  // IQ4_NL's and IQ4_XS's values, plus 128
    static constexpr int bits = 8, offset_bits = 7;
    static constexpr uint8_t entries[16] = {1,   24,  45,  63,  79,  93,  106, 118,
                                            129, 141, 153, 166, 181, 197, 217, 241};
};

struct Fp4Table {  // the doubled values of E2M1, plus 16
    static constexpr int bits = 5, offset_bits = 4;
    static constexpr uint8_t entries[16] = {16, 17, 18, 19, 20, 22, 24, 28,
                                            16, 15, 14, 13, 12, 10, 8,  4};
};

using IQ4_NL = Indices<NonLinearTable, false>;
using MXFP4 = Indices<Fp4Table, true>;

// --- Super-blocks of 256 values ------------------------------------------------------------------

// Byte `byte` of each lane as a float.
inline Floats unsigned_byte(Ints words, int byte) {
    return to_floats(bit_and(shift_right(words, all_words(8 * byte)), all_words(0xFF)));
}

inline Floats signed_byte(Ints words, int byte) {
    return to_floats(sign_extend(words, all_words(24 - 8 * byte)));
}

// The low and high half of a word: d and dmin.
inline Floats scale_of_word(const uint8_t * at) {
    return low_halves_to_floats(load_ints(at));
}
inline Floats minimum_of_word(const uint8_t * at) {
    return low_halves_to_floats(shift_right<16>(load_ints(at)));
}

// Scales and minima of Q4_K and Q5_K: 8 of each, 6 bits a value, in 3 words.
inline void decode_k_scales(const uint8_t * super, float * scales, float * minima) {
    const Floats scale = scale_of_word(super);
    const Floats minimum = minimum_of_word(super);
    const Ints first = load_ints(super + 1 * vector);
    const Ints second = load_ints(super + 2 * vector);
    const Ints third = load_ints(super + 3 * vector);
    const Ints six = all_bytes(0x3F);
    const Ints four = all_bytes(0x0F);
    const Ints two = all_bytes(0x30);
    const Ints scale_words[2] = {
        bit_and(first, six), masked_or(third, four, bit_and(shift_right<2>(first), two))};
    const Ints minimum_words[2] = {
        bit_and(second, six),
        masked_or(shift_right<4>(third), four, bit_and(shift_right<2>(second), two))};
    for (int b = 0; b < super_blocks; b++) {
        store_floats(
            scales + b * row_floats, multiply(scale, unsigned_byte(scale_words[b / 4], b % 4)));
        store_floats(
            minima + b * row_floats, multiply(minimum, unsigned_byte(minimum_words[b / 4], b % 4)));
    }
}

struct Q4_K {
    static constexpr bool halves = false, minima = true;
    static constexpr int bits = 4, offset_bits = 0, block_bytes = 288;
    static int bytes(int) { return 36 * vector; }

    struct Block {
        const uint8_t * at;
        Ints shift;
        Block(const uint8_t * super, int, int b)
            : at(super + (4 + b / 2 * 8) * vector), shift(all_words(b % 2 * 4)) {}
        Ints values(int k) const {
            return low_nibbles(shift_right(load_ints(at + k * vector), shift));
        }
    };

    static void decode_scales(const uint8_t * super, int, float * scales, float * minimum) {
        decode_k_scales(super, scales, minimum);
    }
};

struct Q5_K {
    static constexpr bool halves = false, minima = true;
    static constexpr int bits = 5, offset_bits = 0, block_bytes = 352;
    static int bytes(int) { return 44 * vector; }

    struct Block {
        const uint8_t * at;
        const uint8_t * plane;
        Ints shift;
        BitShift to_fifth;
        Block(const uint8_t * super, int, int b)
            : at(super + (12 + b / 2 * 8) * vector),
              plane(super + 4 * vector),
              shift(all_words(b % 2 * 4)),
              to_fifth(b, 4) {}

        Ints values(int k) const {
            const Ints fifth = to_fifth(load_ints(plane + k * vector));
            return masked_or(
                shift_right(load_ints(at + k * vector), shift), all_bytes(0x0F),
                bit_and(fifth, all_bytes(0x10)));
        }
    };

    static void decode_scales(const uint8_t * super, int, float * scales, float * minimum) {
        decode_k_scales(super, scales, minimum);
    }
};

struct Q6_K {
    static constexpr bool halves = true, minima = false;
    static constexpr int bits = 6, offset_bits = 5, block_bytes = 424;
    static int bytes(int) { return 53 * vector; }

    struct Block {
        const uint8_t * at;
        const uint8_t * upper;
        Ints shift;
        BitShift to_upper;
        Block(const uint8_t * super, int, int b)
            : at(super + (b / 4 * 16 + b % 2 * 8) * vector),
              upper(super + (32 + b / 4 * 8) * vector),
              shift(all_words(b % 4 / 2 * 4)),
              to_upper(b % 4 * 2, 4) {}

        Ints values(int k) const {
            const Ints bits = to_upper(load_ints(upper + k * vector));
            return masked_or(
                shift_right(load_ints(at + k * vector), shift), all_bytes(0x0F),
                bit_and(bits, all_bytes(0x30)));
        }
    };

    static void decode_scales(const uint8_t * super, int, float * scales, float *) {
        const Floats scale = halves_to_floats(super + 52 * vector);
        for (int half = 0; half < 2 * super_blocks; half++) {
            const Ints words = load_ints(super + (48 + half / 4) * vector);
            store_floats(scales + half * row_floats, multiply(scale, signed_byte(words, half % 4)));
        }
    }
};

struct Q3_K {
    static constexpr bool halves = true, minima = false;
    static constexpr int bits = 3, offset_bits = 2, block_bytes = 224;
    static int bytes(int) { return 28 * vector; }

    struct Block {
        const uint8_t * at;
        const uint8_t * plane;
        Ints shift;
        BitShift to_third;
        Block(const uint8_t * super, int, int b)
            : at(super + (8 + b / 4 * 8) * vector),
              plane(super),
              shift(all_words(b % 4 * 2)),
              to_third(b, 2) {}

        Ints values(int k) const {
            const Ints third = to_third(load_ints(plane + k * vector));
            return masked_or(
                shift_right(load_ints(at + k * vector), shift), all_bytes(0x03),
                bit_and(third, all_bytes(0x04)));
        }
    };

    // 16 scales of 6 bits minus 32: low halves in the bytes of words 0 and 1, two more bits in
    // word 2.
    static void decode_scales(const uint8_t * super, int, float * scales, float *) {
        const Floats scale = halves_to_floats(super + 27 * vector);
        const Ints low[2] = {load_ints(super + 24 * vector), load_ints(super + 25 * vector)};
        const Ints high = load_ints(super + 26 * vector);
        for (int half = 0; half < 2 * super_blocks; half++) {
            const int word = half / 4;
            const Ints nibbles = shift_right(low[word % 2], all_words(word / 2 * 4));
            const Ints upper = bit_and(BitShift(word * 2, 4)(high), all_bytes(0x30));
            const Ints six = masked_or(nibbles, all_bytes(0x0F), upper);
            const Ints value = bit_and(shift_right(six, all_words(half % 4 * 8)), all_words(0xFF));
            store_floats(
                scales + half * row_floats,
                multiply(scale, to_floats(add_words(value, all_words(-32)))));
        }
    }
};

struct Q2_K {
    static constexpr bool halves = true, minima = true;
    static constexpr int bits = 2, offset_bits = 0, block_bytes = 168;
    static int bytes(int) { return 21 * vector; }

    struct Block {
        const uint8_t * at;
        Ints shift;
        Block(const uint8_t * super, int, int b)
            : at(super + (4 + b / 4 * 8) * vector), shift(all_words(b % 4 * 2)) {}
        Ints values(int k) const {
            return bit_and(shift_right(load_ints(at + k * vector), shift), all_bytes(0x03));
        }
    };

    static void decode_scales(const uint8_t * super, int, float * scales, float * minimum) {
        const Floats scale = scale_of_word(super + 20 * vector);
        const Floats least = minimum_of_word(super + 20 * vector);
        for (int half = 0; half < 2 * super_blocks; half++) {
            const Ints pairs = load_ints(super + half / 4 * vector);
            store_floats(
                scales + half * row_floats,
                multiply(scale, unsigned_byte(low_nibbles(pairs), half % 4)));
            store_floats(
                minimum + half * row_floats,
                multiply(least, unsigned_byte(low_nibbles(shift_right<4>(pairs)), half % 4)));
        }
    }
};

struct IQ4_XS {
    static constexpr bool halves = false, minima = false;
    static constexpr int bits = NonLinearTable::bits, offset_bits = NonLinearTable::offset_bits;
    static constexpr int block_bytes = 272;
    static int bytes(int) { return 34 * vector; }

    struct Block : IQ4_NL::Block {
        Block(const uint8_t * super, int blocks, int b)
            : IQ4_NL::Block(super + 2 * vector, blocks, b) {}
    };

    // 8 scales of 6 bits minus 32: two upper bits each beside d, low halves in the second word.
    static void decode_scales(const uint8_t * super, int, float * scales, float *) {
        const Floats scale = scale_of_word(super);
        const Ints high = shift_right<16>(load_ints(super));
        const Ints low = load_ints(super + vector);
        for (int b = 0; b < super_blocks; b++) {
            const Ints upper =
                shift_left<4>(bit_and(shift_right(high, all_words(2 * b)), all_words(3)));
            const Ints six = masked_or(shift_right(low, all_words(4 * b)), all_words(0x0F), upper);
            store_floats(
                scales + b * row_floats,
                multiply(scale, to_floats(add_words(six, all_words(-32)))));
        }
    }
};

// --- Floats --------------------------------------------------------------------------------------

struct F32 {
    static constexpr int value_bytes = 64;
    static Floats value(const uint8_t * super, int k) {
        return load_floats(reinterpret_cast<const float *>(super + k * value_bytes));
    }
};

struct F16 {
    static constexpr int value_bytes = 32;
    static Floats value(const uint8_t * super, int k) {
        return halves_to_floats(super + k * value_bytes);
    }
};

struct BF16 {
    static constexpr int value_bytes = 32;
    static Floats value(const uint8_t * super, int k) {
        return bf16_to_floats(super + k * value_bytes);
    }
};

}  // namespace
}  // namespace own
