// Puts the kernels into ggml's CPU backend, and is what other languages call.
//
// ggml asks each of its extra buffer types about every op on the CPU. Ours comes first in their
// list: weights that are loaded into it are packed, and any op whose data it knows can be taken
// over. That needs no patch, and the op runs in ggml's own threads. What is not supported goes on
// to stock.
#include "attention.h"
#include "cell_positions.h"
#include "cpu.h"
#include "ggml-backend-impl.h"
#include "ggml-cpu.h"
#include "packing.h"
#include "products.h"
#include "traits.h"
#include "usage.h"

#include <vector>

#define EXPORT extern "C" __attribute__((visibility("default")))

namespace {

bool with_attention = true;

struct ProductTraits final : ggml::cpu::tensor_traits {
    bool work_size(int threads, const ggml_tensor * op, size_t & size) override {
        own::record_own(op);
        size = own::product_work_bytes(op, threads);
        return true;
    }

    bool compute_forward(ggml_compute_params * params, ggml_tensor * dst) override {
        own::compute_product(params, dst);
        return true;
    }
};

struct AttentionTraits final : ggml::cpu::tensor_traits {
    bool work_size(int threads, const ggml_tensor * op, size_t & size) override {
        own::record_own(op);
        size = own::attention_work_bytes(op, threads);
        return true;
    }

    bool compute_forward(ggml_compute_params * params, ggml_tensor * dst) override {
        own::compute_attention(params, dst);
        return true;
    }
};

ProductTraits product_traits;
AttentionTraits attention_traits;
ggml_backend_buffer_type buffer_type;

bool is_packed(const ggml_tensor * tensor) {
    return tensor->buffer && tensor->buffer->buft == &buffer_type;
}

struct ExtraBufferType final : ggml::cpu::extra_buffer_type {
    // Asked while a model is loaded, to decide whether `op`'s weights go into this buffer type.
    bool supports_op(ggml_backend_dev_t, const ggml_tensor * op) override {
        const bool is_product = op->op == GGML_OP_MUL_MAT || op->op == GGML_OP_MUL_MAT_ID;
        if (!is_product || !is_packed(op->src[0]) || !own::can_pack(op->src[0])) {
            return false;
        }
        if (op->src[0]->view_src) {  // a part of a packed matrix is nowhere
            return false;
        }
        const ggml_tensor * rows = op->src[1];
        return own::supports_product(op) &&
               (!rows->buffer || ggml_backend_buft_is_host(rows->buffer->buft));
    }

    ggml::cpu::tensor_traits * get_tensor_traits(const ggml_tensor * op) override {
        ggml::cpu::tensor_traits * traits = find_traits(op);
        if (!traits) {
            own::record_stock(op);
        }
        return traits;
    }

  private:
    static ggml::cpu::tensor_traits * find_traits(const ggml_tensor * op) {
        switch (op->op) {
            case GGML_OP_MUL_MAT:
            case GGML_OP_MUL_MAT_ID:
                return is_packed(op->src[0]) ? &product_traits : nullptr;
            case GGML_OP_FLASH_ATTN_EXT:
                return with_attention && own::supports_attention(op) ? &attention_traits : nullptr;
            default:
                return nullptr;
        }
    }
};

const char * buffer_name(ggml_backend_buffer_type_t) {
    return "CPU_OWN";
}

// The library sets each tensor whole, from where it is in the file or in a temporary buffer.
void set_tensor(
    ggml_backend_buffer_t, ggml_tensor * weights, const void * data, size_t offset, size_t size) {
    GGML_ASSERT(offset == 0 && size == ggml_nbytes(weights));
    own::pack(weights, data);
}

ggml_backend_buffer_t allocate(ggml_backend_buffer_type_t type, size_t size) {
    ggml_backend_buffer_t buffer =
        ggml_backend_buft_alloc_buffer(ggml_backend_cpu_buffer_type(), size);
    if (!buffer) {
        return nullptr;
    }
    buffer->buft = type;
    buffer->iface.set_tensor = set_tensor;
    buffer->iface.get_tensor = nullptr;  // what is packed cannot be read back
    buffer->iface.cpy_tensor = nullptr;
    return buffer;
}

size_t allocated_bytes(ggml_backend_buffer_type_t, const ggml_tensor * tensor) {
    return own::can_pack(tensor) ? own::packed_bytes(tensor) : ggml_nbytes(tensor);
}

size_t alignment(ggml_backend_buffer_type_t) {
    return 64;
}

}  // namespace

// Use the kernels for every model that is loaded from now on. False: this CPU has none of the
// instruction sets. Call it once, before the library's first model.
EXPORT bool own_register() {
    if (own::isa() == own::Isa::none) {
        return false;
    }
    buffer_type.iface = {buffer_name, allocate, alignment, nullptr, allocated_bytes, nullptr};
    buffer_type.device = ggml_backend_reg_dev_get(ggml_backend_cpu_reg(), 0);
    buffer_type.context = new ExtraBufferType();
    auto & types = ggml_backend_cpu_get_extra_buffer_types();
    types.insert(types.begin(), &buffer_type);
    return true;
}

EXPORT bool own_select_isa(const char * name) {
    return own::select_isa(name);
}

EXPORT const char * own_isa() {
    return own::isa_name(own::isa());
}

// Whether attention is computed here, too.
EXPORT void own_set_attention(bool is_on) {
    with_attention = is_on;
}

// Read the positions of cells from this memory from now on; see cell_positions.h.
EXPORT bool own_watch(llama_memory_i * memory) {
    return own::watch_memory(memory);
}

// See packing.h.
EXPORT void own_configure_packing(int threads, bool is_mapped) {
    own::configure_packing(threads, is_mapped);
}

// See usage.h.
EXPORT void own_begin_recording() {
    own::begin_recording();
}

EXPORT own::Usage own_end_recording() {
    return own::end_recording();
}
