#include "attention.h"

#include "attention_item.h"
#include "cpu.h"
#include "visible_keys.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>

namespace own {

namespace {

constexpr size_t alignment = 64;
constexpr int most_rows = 64;
constexpr int64_t items_per_thread = 4;

AttendItem select_kernel() {
    switch (isa()) {
        case Isa::none:
            return nullptr;
        case Isa::avx2:
        case Isa::avx2_vnni:
            return attend_item_avx2;
        case Isa::avx512_vnni:
        case Isa::amx:
            return attend_item_avx512;
    }
    return nullptr;
}

bool supports_cache(const ggml_tensor * tensor) {
    const int64_t size = tensor->ne[0];
    if (size < 16 || size > 256 || size % 16 != 0 ||
        tensor->nb[0] != ggml_type_size(tensor->type)) {
        return false;
    }
    switch (tensor->type) {
        case GGML_TYPE_F32:
        case GGML_TYPE_F16:
        case GGML_TYPE_BF16:
            return true;
        case GGML_TYPE_Q8_0:
        case GGML_TYPE_Q4_0:
            return size % 32 == 0;
        default:
            return false;
    }
}

struct Parameters {
    float scale;
    float max_bias;
    float softcap;
};

Parameters read_parameters(const ggml_tensor * op) {
    Parameters parameters;
    std::memcpy(&parameters, op->op_params, sizeof(parameters));
    return parameters;
}

// The factor of the mask for a query head (ALiBi); 1 if there is none.
float slope(int64_t head, int64_t heads, float max_bias) {
    if (max_bias <= 0) {
        return 1;
    }
    const int64_t power = int64_t{1} << static_cast<int>(std::floor(std::log2(heads)));
    const float base = std::pow(2.0f, -max_bias / power);
    return head < power ? std::pow(base, head + 1)
                        : std::pow(std::pow(2.0f, -max_bias / 2 / power), 2 * (head - power) + 1);
}

// How the op is divided. None of it has an influence on the results.
struct Division {
    int rows;           // of an item
    int heads;          // query heads of an item, of one key head
    int64_t key_heads;  // that an item does one after the other
};

Division divide(int64_t rows, int64_t key_heads, int64_t group, int threads) {
    const auto heads = static_cast<int>(std::min<int64_t>(group, max_item_pairs));
    Division division = {std::clamp(max_item_pairs / heads, 1, most_rows), heads, 1};
    const int64_t wanted = items_per_thread * threads;
    const auto items = [&] {
        const int64_t blocks = (rows + division.rows - 1) / division.rows;
        return blocks * key_heads * ((group + division.heads - 1) / division.heads);
    };
    while (items() < wanted && division.rows > 1) {
        division.rows = (division.rows + 1) / 2;
    }
    while (items() < threads && division.heads > 1) {
        division.heads = (division.heads + 1) / 2;
    }
    division.key_heads = std::clamp<int64_t>(items() / (8 * wanted), 1, key_heads);
    return division;
}

// The ends of items in the table of rows: an item's rows are of one stream.
std::vector<int> cut_blocks(const VisibleRows & rows, int most) {
    std::vector<int> ends;
    int begin = 0;
    for (int row = 1; row <= static_cast<int>(rows.size()); row++) {
        if (row == static_cast<int>(rows.size()) || row - begin == most ||
            rows[row].stream != rows[begin].stream) {
            ends.push_back(row);
            begin = row;
        }
    }
    return ends;
}

struct Op {
    const ggml_tensor * dst;
    Parameters parameters;
    AttendItem kernel;
    int64_t group;  // query heads of a key head
    float * work;   // of this thread
};

// Compute rows `from` to `to` of the table for `heads` query heads of `key_head`, from `first_head`
// on.
void compute_item(
    const Op & op, const VisibleRow * rows, int row_count, int64_t key_head, int64_t first_head,
    int heads) {
    const ggml_tensor * dst = op.dst;
    const ggml_tensor *queries = dst->src[0], *keys = dst->src[1], *values = dst->src[2],
                      *mask = dst->src[3];
    std::array<const float *, max_item_pairs> query_rows;
    std::array<float *, max_item_pairs> output_rows;
    std::array<const ggml_fp16_t *, max_item_pairs> biases;
    std::array<float, max_item_pairs> slopes;
    const int64_t stream = rows[0].stream;
    const int64_t all_heads = queries->ne[2];
    const int64_t head_from = key_head * op.group + first_head;
    for (int row = 0; row < row_count; row++) {
        const int64_t at = rows[row].row;
        biases[row] = rows[row].has_bias
                          ? reinterpret_cast<const ggml_fp16_t *>(
                                static_cast<const char *>(mask->data) + at * mask->nb[1] +
                                stream % mask->ne[3] * mask->nb[3])
                          : nullptr;
        for (int head = 0; head < heads; head++) {
            const int pair = row * heads + head;
            query_rows[pair] = reinterpret_cast<const float *>(
                static_cast<const char *>(queries->data) + at * queries->nb[1] +
                (head_from + head) * queries->nb[2] + stream * queries->nb[3]);
            output_rows[pair] = reinterpret_cast<float *>(
                static_cast<char *>(dst->data) + (head_from + head) * dst->nb[1] + at * dst->nb[2] +
                stream * dst->nb[3]);
        }
    }
    for (int head = 0; head < heads; head++) {
        slopes[head] = slope(head_from + head, all_heads, op.parameters.max_bias);
    }
    AttentionItem item = {};
    item.keys = static_cast<const char *>(keys->data) + key_head * keys->nb[2] +
                stream % keys->ne[3] * keys->nb[3];
    item.values = static_cast<const char *>(values->data) + key_head * values->nb[2] +
                  stream % values->ne[3] * values->nb[3];
    item.key_stride = keys->nb[1];
    item.value_stride = values->nb[1];
    item.key_type = keys->type;
    item.value_type = values->type;
    item.key_size = static_cast<int>(keys->ne[0]);
    item.value_size = static_cast<int>(values->ne[0]);
    item.scale = op.parameters.scale;
    item.softcap = op.parameters.softcap;
    item.row_count = row_count;
    item.heads = heads;
    item.rows = rows;
    item.biases = biases.data();
    item.queries = query_rows.data();
    item.outputs = output_rows.data();
    item.slopes = slopes.data();
    item.sinks = dst->src[4] ? static_cast<const float *>(dst->src[4]->data) + head_from : nullptr;
    item.work = op.work;
    op.kernel(item);
}

}  // namespace

bool supports_attention(const ggml_tensor * op) {
    const ggml_tensor *queries = op->src[0], *keys = op->src[1], *values = op->src[2],
                      *mask = op->src[3];
    const ggml_tensor * sinks = op->src[4];
    if (!select_kernel() || !supports_cache(keys) || !supports_cache(values)) {
        return false;
    }
    if (queries->type != GGML_TYPE_F32 || queries->nb[0] != sizeof(float) ||
        op->type != GGML_TYPE_F32) {
        return false;
    }
    if (keys->ne[2] != values->ne[2] || queries->ne[2] % keys->ne[2] != 0 ||
        keys->ne[3] != queries->ne[3] || values->ne[3] != queries->ne[3] ||
        values->ne[1] != keys->ne[1]) {
        return false;
    }
    if (mask && (mask->type != GGML_TYPE_F16 || mask->nb[0] != sizeof(ggml_fp16_t) ||
                 mask->ne[2] != 1 || mask->ne[0] < keys->ne[1] || mask->ne[1] < queries->ne[1])) {
        return false;
    }
    return !sinks || sinks->type == GGML_TYPE_F32;
}

size_t attention_work_bytes(const ggml_tensor * op, int threads) {
    forget_visible_keys();
    const size_t floats = attention_item_floats(op->src[1]->ne[0], op->src[2]->ne[0]);
    return 2 * alignment + static_cast<size_t>(threads) * (floats * sizeof(float) + alignment);
}

void compute_attention(const ggml_compute_params * params, ggml_tensor * dst) {
    const ggml_tensor *queries = dst->src[0], *keys = dst->src[1], *values = dst->src[2];
    const VisibleRows & rows = find_visible_keys(params, dst);

    const size_t own_bytes =
        attention_item_floats(keys->ne[0], values->ne[0]) * sizeof(float) + alignment;
    const auto start =
        reinterpret_cast<uintptr_t>(params->wdata) + alignment + params->ith * own_bytes;
    const int64_t group = queries->ne[2] / keys->ne[2];
    const Op op = {
        dst, read_parameters(dst), select_kernel(), group,
        reinterpret_cast<float *>((start + alignment - 1) / alignment * alignment)};

    const Division division =
        divide(static_cast<int64_t>(rows.size()), keys->ne[2], group, params->nth);
    const std::vector<int> ends = cut_blocks(rows, division.rows);
    const int64_t head_parts = (group + division.heads - 1) / division.heads;
    const int64_t key_head_parts = (keys->ne[2] + division.key_heads - 1) / division.key_heads;
    const auto blocks = static_cast<int64_t>(ends.size());
    const int64_t items = blocks * key_head_parts * head_parts;
    for (int64_t item = params->ith; item < items;
         item = ggml_threadpool_chunk_add(params->threadpool, 1)) {
        // The last blocks of a prompt see the most keys: they come first.
        const int64_t block = blocks - 1 - item % blocks;
        const int64_t head_part = item / blocks % head_parts;
        const int64_t key_head_part = item / blocks / head_parts;
        const int from = block == 0 ? 0 : ends[block - 1];
        const int64_t first_head = head_part * division.heads;
        const auto heads = static_cast<int>(std::min<int64_t>(division.heads, group - first_head));
        const int64_t key_head = key_head_part * division.key_heads;
        for (int64_t each = key_head; each < std::min(keys->ne[2], key_head + division.key_heads);
             each++) {
            compute_item(op, &rows[from], ends[block] - from, each, first_head, heads);
        }
    }
}

}  // namespace own
