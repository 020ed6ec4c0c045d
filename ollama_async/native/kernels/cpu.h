// Which instruction set the kernels use. Chosen once, at run time; nothing but this file asks the CPU.
#pragma once

namespace own {

enum class Isa {
    none,         // stock takes everything
    avx2,         // with FMA and F16C
    avx2_vnni,    // AVX2 with the 8-bit dot products of AVX-VNNI
    avx512_vnni,  // AVX-512 F, BW, DQ, VL and VNNI
    amx,          // the former, and int8 tiles for many rows
};

// The best one of this CPU, or a lesser one that select_isa() has named.
Isa isa();

// Use `name` ("avx2", "avx2_vnni", "avx512_vnni", "amx", "none"; "" = the best). False: this CPU does
// not have it, or it is unknown; nothing has changed. Call it before a model is loaded.
bool select_isa(const char * name);

const char * isa_name(Isa isa);

}  // namespace own
