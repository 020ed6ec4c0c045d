#include "attention.h"

#include "attention_item.h"
#include "cpu.h"
#include "visible_keys.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <vector>

namespace own {

namespace {

constexpr size_t alignment = 64;
constexpr int item_rows = 64;  // at most
constexpr int64_t items_per_thread = 4;
constexpr int64_t most_keys = 1 << 24;  // the kernels compare places of keys as floats

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

// How an op is divided into items. None of it has an influence on the results.
struct Division {
    std::vector<int> ends;  // of the items' rows in the table of rows
    int heads;              // query heads of an item for each of its key heads
    int head_parts;
    int key_heads;  // of an item
    int key_head_parts;

    int items() const { return static_cast<int>(ends.size()) * head_parts * key_head_parts; }
};

int parts(int64_t whole, int64_t part) {
    return static_cast<int>((whole + part - 1) / part);
}

// Rows go into an item together if they may share tiles.
std::vector<int> cut_rows(const VisibleRows & rows, int most) {
    std::vector<int> ends;
    int begin = 0;
    for (int row = 1; row <= static_cast<int>(rows.size()); row++) {
        if (row == static_cast<int>(rows.size()) || row - begin == most || rows[row].split == 0) {
            ends.push_back(row);
            begin = row;
        }
    }
    return ends;
}

Division divide(const VisibleRows & rows, int64_t key_heads, int64_t group, int threads) {
    Division division;
    division.heads = static_cast<int>(std::min<int64_t>(group, max_item_pairs));
    int most_rows = std::clamp(max_item_pairs / division.heads, 1, item_rows);
    const int64_t wanted = items_per_thread * threads;
    while (most_rows > 1 && parts(rows.size(), most_rows) * key_heads < wanted) {
        most_rows = parts(most_rows, 2);
    }
    division.ends = cut_rows(rows, most_rows);
    const auto blocks = static_cast<int64_t>(division.ends.size());
    while (division.heads > 1 && blocks * key_heads * parts(group, division.heads) < threads) {
        division.heads = parts(division.heads, 2);
    }
    division.head_parts = parts(group, division.heads);
    // Key heads beside each other share lines and pages of memory, which is slow where rows are
    // few.
    int longest = 0;
    for (int block = 0, begin = 0; block < blocks; begin = division.ends[block++]) {
        longest = std::max(longest, division.ends[block] - begin);
    }
    const int64_t most_key_heads = std::max(1, max_item_pairs / (longest * division.heads));
    const int64_t can_be = blocks * division.head_parts * key_heads / wanted;
    division.key_heads =
        static_cast<int>(std::clamp<int64_t>(can_be, 1, std::min(key_heads, most_key_heads)));
    division.key_head_parts = parts(key_heads, division.key_heads);
    return division;
}

// A tensor's row as the permuted views of an attention op have it: dimension 1 is the row.
template <class T>
T * row_of(const ggml_tensor * tensor, int64_t row, int64_t head, int64_t stream) {
    return reinterpret_cast<T *>(
        static_cast<char *>(tensor->data) + row * tensor->nb[1] + head * tensor->nb[2] +
        stream * tensor->nb[3]);
}

// Which part of an op an item is.
struct Part {
    const VisibleRow * rows;
    int row_count;
    int64_t key_head;
    int key_heads;
    int64_t head;  // the first one of each key head's group
    int heads;
};

void compute_part(const ggml_tensor * dst, const Part & part, float * work) {
    const ggml_tensor *queries = dst->src[0], *keys = dst->src[1], *values = dst->src[2];
    const ggml_tensor *mask = dst->src[3], *sinks = dst->src[4];
    const Parameters parameters = read_parameters(dst);
    const int64_t group = queries->ne[2] / keys->ne[2];
    const int64_t stream = part.rows[0].stream;

    std::array<const ggml_fp16_t *, max_item_pairs> biases = {};
    for (int row = 0; row < part.row_count; row++) {
        if (part.rows[row].has_bias) {
            biases[row] = row_of<ggml_fp16_t>(mask, part.rows[row].row, 0, stream % mask->ne[3]);
        }
    }
    std::array<const float *, max_item_pairs> query_rows;
    std::array<float *, max_item_pairs> output_rows;
    std::array<float, max_item_pairs> slopes, sink_scores;
    int pair = 0, each = 0;
    for (int key_head = 0; key_head < part.key_heads; key_head++) {
        const int64_t first_head = (part.key_head + key_head) * group + part.head;
        for (int row = 0; row < part.row_count; row++) {
            for (int64_t head = first_head; head < first_head + part.heads; head++, pair++) {
                query_rows[pair] = row_of<float>(queries, part.rows[row].row, head, stream);
                // Here rows are in dimension 2.
                output_rows[pair] = row_of<float>(dst, head, part.rows[row].row, stream);
            }
        }
        for (int64_t head = first_head; head < first_head + part.heads; head++, each++) {
            slopes[each] = slope(head, queries->ne[2], parameters.max_bias);
            sink_scores[each] = sinks ? static_cast<const float *>(sinks->data)[head] : 0;
        }
    }
    AttentionItem item;
    item.keys = row_of<char>(keys, 0, part.key_head, stream);
    item.values = row_of<char>(values, 0, part.key_head, stream);
    item.key_stride = keys->nb[1];
    item.value_stride = values->nb[1];
    item.key_head_stride = keys->nb[2];
    item.value_head_stride = values->nb[2];
    item.key_type = keys->type;
    item.value_type = values->type;
    item.key_size = static_cast<int>(keys->ne[0]);
    item.value_size = static_cast<int>(values->ne[0]);
    item.scale = parameters.scale;
    item.softcap = parameters.softcap;
    item.key_heads = part.key_heads;
    item.row_count = part.row_count;
    item.heads = part.heads;
    item.rows = part.rows;
    item.biases = biases.data();
    item.queries = query_rows.data();
    item.outputs = output_rows.data();
    item.slopes = slopes.data();
    item.sinks = sinks ? sink_scores.data() : nullptr;
    item.work = work;
    select_kernel()(item);
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
        values->ne[1] != keys->ne[1] || keys->ne[1] > most_keys) {
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
    auto * work = reinterpret_cast<float *>((start + alignment - 1) / alignment * alignment);

    const int64_t group = queries->ne[2] / keys->ne[2];
    const Division division = divide(rows, keys->ne[2], group, params->nth);
    const auto blocks = static_cast<int>(division.ends.size());
    for (int item = params->ith; item < division.items();
         item = ggml_threadpool_chunk_add(params->threadpool, 1)) {
        // The last rows of a prompt see the most keys: they come first.
        const int block = blocks - 1 - item % blocks;
        const int begin = block == 0 ? 0 : division.ends[block - 1];
        Part part;
        part.rows = &rows[begin];
        part.row_count = division.ends[block] - begin;
        part.key_head = item / blocks / division.head_parts * division.key_heads;
        part.key_heads =
            static_cast<int>(std::min<int64_t>(division.key_heads, keys->ne[2] - part.key_head));
        part.head = item / blocks % division.head_parts * division.heads;
        part.heads = static_cast<int>(std::min<int64_t>(division.heads, group - part.head));
        compute_part(dst, part, work);
    }
}

}  // namespace own
