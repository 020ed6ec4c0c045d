#include "usage.h"

#include "ggml-impl.h"

#include <array>
#include <atomic>
#include <string>

namespace own {

namespace {

std::atomic<bool> is_recording{false};
std::atomic<int64_t> products{0};
std::atomic<int64_t> attentions{0};
std::array<std::atomic<bool>, GGML_OP_COUNT> variant{};

// Stock computes each row of these, or each element, in an order of its own.
bool is_by_row(const ggml_tensor * op) {
    switch (op->op) {
        case GGML_OP_NONE:
        case GGML_OP_DUP:
        case GGML_OP_ADD:
        case GGML_OP_ADD_ID:
        case GGML_OP_ADD1:
        case GGML_OP_SUB:
        case GGML_OP_MUL:
        case GGML_OP_DIV:
        case GGML_OP_SQR:
        case GGML_OP_SQRT:
        case GGML_OP_LOG:
        case GGML_OP_SIN:
        case GGML_OP_COS:
        case GGML_OP_SUM_ROWS:
        case GGML_OP_MEAN:
        case GGML_OP_ARGMAX:
        case GGML_OP_REPEAT:
        case GGML_OP_CONCAT:
        case GGML_OP_NORM:
        case GGML_OP_RMS_NORM:
        case GGML_OP_L2_NORM:
        case GGML_OP_SCALE:
        case GGML_OP_CPY:
        case GGML_OP_CONT:
        case GGML_OP_RESHAPE:
        case GGML_OP_VIEW:
        case GGML_OP_PERMUTE:
        case GGML_OP_TRANSPOSE:
        case GGML_OP_GET_ROWS:
        case GGML_OP_SET_ROWS:
        case GGML_OP_SOFT_MAX:
        case GGML_OP_ROPE:
        case GGML_OP_CLAMP:
        case GGML_OP_ARGSORT:
        case GGML_OP_TOP_K:
        case GGML_OP_FILL:
        case GGML_OP_LEAKY_RELU:
        case GGML_OP_UNARY:
        case GGML_OP_GLU:
            return true;
        case GGML_OP_MUL_MAT:  // a Hadamard matrix is applied row by row, without a product
            return ggml_get_op_params_i32(op, 1) == GGML_HINT_SRC0_IS_HADAMARD;
        default:
            return false;
    }
}

}  // namespace

void begin_recording() {
    products = attentions = 0;
    for (auto & each : variant) {
        each = false;
    }
    is_recording = true;
}

Usage end_recording() {
    static std::string names;
    is_recording = false;
    names.clear();
    for (int op = 0; op < GGML_OP_COUNT; op++) {
        if (variant[op]) {
            names += (names.empty() ? "" : " ");
            names += ggml_op_name(static_cast<ggml_op>(op));
        }
    }
    return {products, attentions, names.c_str()};
}

void record_own(const ggml_tensor * op) {
    if (is_recording.load(std::memory_order_relaxed)) {
        (op->op == GGML_OP_FLASH_ATTN_EXT ? attentions : products)++;
    }
}

void record_stock(const ggml_tensor * op) {
    if (is_recording.load(std::memory_order_relaxed) && !is_by_row(op)) {
        variant[op->op] = true;
    }
}

}  // namespace own
