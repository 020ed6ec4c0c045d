#include "products.h"

#include "cpu.h"
#include "packed_weights.h"
#include "products_kernels.h"

#include <algorithm>
#include <cstring>

namespace own {

namespace {

// Rows are filled up to 16: thousands of small matrices would take many times their memory.
constexpr size_t most_filling = 64 << 20;

const ProductKernels * kernels() {
    switch (isa()) {
        case Isa::amx:
            return &product_kernels_amx();
        case Isa::avx512_vnni:
            return &product_kernels_avx512_vnni();
        case Isa::avx2_vnni:
            return &product_kernels_avx2_vnni();
        case Isa::avx2:
            return &product_kernels_avx2();
        case Isa::none:
            return nullptr;
    }
    return nullptr;
}

int64_t groups_of(const ggml_tensor * weights) {
    return (weights->ne[1] + group_rows - 1) / group_rows;
}

size_t matrix_bytes(const ggml_tensor * weights) {
    return packed_group_bytes(weights->type, weights->ne[0]) * groups_of(weights);
}

size_t activation_bytes(ggml_type type) {
    const bool is_float = kernels()->activations[type] == Activations::floats;
    return is_float ? sizeof(FloatActivations) : sizeof(QuantizedActivations);
}

int64_t ceil_div(int64_t a, int64_t b) {
    return (a + b - 1) / b;
}

// The rows that one matrix is multiplied with: `count` places from `first` on.
struct Segment {
    int64_t matrix;
    int64_t first;
    int64_t count;
};

// Where a row of activations is and where its outputs go.
struct Place {
    const float * source;
    float * target;
};

// The rows of an op in the order of their matrices: computed, or, for experts, written into the
// op's working memory first.
class Plan {
  public:
    static bool is_written(const ggml_tensor * op) { return op->op == GGML_OP_MUL_MAT_ID; }

    static size_t bytes(const ggml_tensor * op) {
        const int64_t segments = op->src[0]->ne[2] + 1;
        return is_written(op) ? places_of(op) * sizeof(Place) + segments * sizeof(Segment) : 0;
    }

    static int64_t places_of(const ggml_tensor * op) { return ggml_nelements(op) / op->ne[0]; }

    Plan(const ggml_tensor * op, uint8_t * memory)
        : op_(op),
          places_(reinterpret_cast<Place *>(memory)),
          segments_(reinterpret_cast<Segment *>(places_ + places_of(op))),
          rows_per_matrix_(op->src[1]->ne[2] / op->src[0]->ne[2]) {}

    Place place(int64_t number) const {
        if (is_written(op_)) {
            return places_[number];
        }
        const ggml_tensor * rows = op_->src[1];
        const int64_t i1 = number % rows->ne[1];
        number /= rows->ne[1];
        const int64_t of_matrix = number % rows_per_matrix_;
        number /= rows_per_matrix_;
        const int64_t i2 = number / rows->ne[3] * rows_per_matrix_ + of_matrix;
        const int64_t i3 = number % rows->ne[3];
        return {target(rows, i1, i2, i3), target(op_, i1, i2, i3)};
    }

    // The last one has no rows.
    Segment segment(int64_t number) const {
        if (is_written(op_)) {
            return segments_[number];
        }
        const int64_t matrices = op_->src[0]->ne[2];
        const int64_t count = number < matrices ? places_of(op_) / matrices : 0;
        return {number, number * count, count};
    }

    // Output (slot, token) is row (slot or 0, token) times the expert that ids[slot, token] names.
    // One thread writes that.
    void write() {
        const ggml_tensor * rows = op_->src[1];
        const ggml_tensor * ids = op_->src[2];
        const int64_t experts = op_->src[0]->ne[2];
        auto expert_of = [&](int64_t slot, int64_t token) {
            int32_t id;
            std::memcpy(
                &id, static_cast<const char *>(ids->data) + slot * ids->nb[0] + token * ids->nb[1],
                4);
            return id;
        };
        for (int64_t expert = 0; expert <= experts; expert++) {
            segments_[expert] = {expert, 0, 0};
        }
        for (int64_t token = 0; token < ids->ne[1]; token++) {
            for (int64_t slot = 0; slot < ids->ne[0]; slot++) {
                const int32_t expert = expert_of(slot, token);
                GGML_ASSERT(expert >= 0 && expert < experts);
                segments_[expert].count++;
            }
        }
        int64_t place = 0;
        for (int64_t expert = 0; expert < experts; expert++) {
            segments_[expert].first = place;
            place += segments_[expert].count;
            segments_[expert].count = 0;
        }
        for (int64_t token = 0; token < ids->ne[1]; token++) {
            for (int64_t slot = 0; slot < ids->ne[0]; slot++) {
                Segment & segment = segments_[expert_of(slot, token)];
                places_[segment.first + segment.count++] = {
                    target(rows, slot % rows->ne[1], token, 0), target(op_, slot, token, 0)};
            }
        }
        Segment * used = segments_;
        for (int64_t expert = 0; expert < experts; expert++) {
            if (segments_[expert].count) {
                *used++ = segments_[expert];
            }
        }
        *used = {0, 0, 0};
    }

  private:
    static float * target(const ggml_tensor * op, int64_t i1, int64_t i2, int64_t i3) {
        char * data = static_cast<char *>(op->data);
        return reinterpret_cast<float *>(data + i1 * op->nb[1] + i2 * op->nb[2] + i3 * op->nb[3]);
    }

    const ggml_tensor * op_;
    Place * places_;
    Segment * segments_;
    int64_t rows_per_matrix_;
};

// How a product is divided into tiles, which threads take one by one.
struct Shares {
    enum : int64_t { least_rows = 48, most_rows = 384, tile_outputs = 16384 };

    int64_t groups;  // of a tile
    int64_t rows;

    Shares(const ggml_tensor * op, const Plan & plan, int threads) {
        const int64_t all_groups = groups_of(op->src[0]);
        int64_t longest = 0;
        int64_t matrices = 0;
        for (Segment segment; (segment = plan.segment(matrices)).count; matrices++) {
            longest = std::max(longest, segment.count);
        }
        // Small enough that a thread that loses its core does not keep the others waiting.
        const int64_t wanted = threads == 1 ? 1 : 8 * threads;
        const int64_t pairs = ceil_div(all_groups, 2) * matrices;
        const int64_t parts = std::max(
            ceil_div(longest, most_rows),
            std::min(ceil_div(wanted, pairs), ceil_div(longest, least_rows)));
        rows = ceil_div(longest, parts);
        groups =
            std::min(all_groups * matrices * parts / wanted, tile_outputs / (rows * group_rows));
        groups = std::max<int64_t>(groups / 2 * 2, std::min<int64_t>(2, all_groups));
    }
};

void multiply_tile(
    const ggml_tensor * weights, ProductTile tile, int64_t matrix, int64_t group, const Plan & plan,
    int64_t first_place) {
    alignas(64) float outputs[Shares::tile_outputs];
    tile.weights = static_cast<const uint8_t *>(weights->data) + matrix * matrix_bytes(weights) +
                   group * tile.group_bytes;
    tile.outputs = outputs;
    kernels()->multiply[weights->type](tile);
    const int64_t first = group * group_rows;
    const int64_t count = std::min<int64_t>(tile.groups * group_rows, weights->ne[1] - first);
    for (int row = 0; row < tile.rows; row++) {
        std::memcpy(
            plan.place(first_place + row).target + first, outputs + row * tile.groups * group_rows,
            count * sizeof(float));
    }
}

uint8_t * aligned(void * memory) {
    return reinterpret_cast<uint8_t *>((reinterpret_cast<uintptr_t>(memory) + 63) & ~uintptr_t(63));
}

}  // namespace

bool can_pack(const ggml_tensor * weights) {
    return kernels() && kernels()->multiply[weights->type] && weights->ne[3] == 1 &&
           weights->ne[0] % block_values == 0 && has_packed_layout(weights->type, weights->ne[0]) &&
           packed_bytes(weights) <= 2 * ggml_nbytes(weights) + most_filling;
}

size_t packed_bytes(const ggml_tensor * weights) {
    return matrix_bytes(weights) * weights->ne[2];
}

int64_t pack_units(const ggml_tensor * weights) {
    return groups_of(weights) * weights->ne[2];
}

void pack_unit(const ggml_tensor * weights, const void * data, int64_t unit) {
    const int64_t groups = groups_of(weights);
    const int64_t row = unit % groups * group_rows;
    const int64_t rows = std::min<int64_t>(group_rows, weights->ne[1] - row);
    const size_t row_bytes = ggml_row_size(weights->type, weights->ne[0]);
    const int64_t rows_before = unit / groups * weights->ne[1] + row;
    pack_group(
        weights->type, weights->ne[0], static_cast<const uint8_t *>(data) + rows_before * row_bytes,
        static_cast<int>(rows),
        static_cast<uint8_t *>(weights->data) +
            unit * packed_group_bytes(weights->type, weights->ne[0]));
}

bool supports_product(const ggml_tensor * op) {
    const ggml_tensor * weights = op->src[0];
    const ggml_tensor * rows = op->src[1];
    if (!can_pack(weights) || rows->type != GGML_TYPE_F32 || rows->nb[0] != sizeof(float) ||
        op->type != GGML_TYPE_F32 || op->nb[0] != sizeof(float)) {
        return false;
    }
    if (op->op == GGML_OP_MUL_MAT_ID) {
        return op->src[2]->type == GGML_TYPE_I32;
    }
    return weights->ne[2] == 1 || rows->ne[2] % weights->ne[2] == 0;
}

size_t product_work_bytes(const ggml_tensor * op, int) {
    const ggml_tensor * weights = op->src[0];
    const int64_t supers = ceil_div(weights->ne[0], super_values);
    return Plan::places_of(op) * supers * activation_bytes(weights->type) + Plan::bytes(op) + 64;
}

void compute_product(const ggml_compute_params * params, ggml_tensor * dst) {
    const ggml_tensor * weights = dst->src[0];
    const int64_t places = Plan::places_of(dst);
    const int64_t supers = ceil_div(weights->ne[0], super_values);
    const size_t each = activation_bytes(weights->type);
    uint8_t * const activations = aligned(params->wdata);
    Plan plan(dst, activations + places * supers * each);
    if (params->ith == 0) {
        ggml_threadpool_chunk_set(params->threadpool, params->nth);
    }
    if (Plan::is_written(dst)) {
        if (params->ith == 0) {
            plan.write();
        }
        ggml_barrier(params->threadpool);
    }

    const Activations kind = kernels()->activations[weights->type];
    const int64_t pieces = places * supers;
    const int64_t end = pieces * (params->ith + 1) / params->nth;
    for (int64_t piece = pieces * params->ith / params->nth; piece < end; piece++) {
        const int64_t super = piece / places;
        const int64_t values =
            std::min<int64_t>(super_values, weights->ne[0] - super * super_values);
        kernels()->store_activations(
            kind, plan.place(piece % places).source + super * super_values,
            static_cast<int>(values), activations + piece * each);
    }
    ggml_barrier(params->threadpool);

    const Shares shares(dst, plan, params->nth);
    const int64_t all_groups = groups_of(weights);
    ProductTile tile = {};
    tile.group_bytes = packed_group_bytes(weights->type, weights->ne[0]);
    tile.values = weights->ne[0];
    tile.super_stride = places * each;
    int64_t next = params->ith;
    int64_t number = 0;
    Segment segment;
    for (int64_t each_segment = 0; (segment = plan.segment(each_segment)).count; each_segment++) {
        for (int64_t row = 0; row < segment.count; row += shares.rows) {
            tile.rows = static_cast<int>(std::min(shares.rows, segment.count - row));
            tile.activations = activations + (segment.first + row) * each;
            for (int64_t group = 0; group < all_groups; group += shares.groups, number++) {
                if (number != next) {
                    continue;
                }
                tile.groups = static_cast<int>(std::min(shares.groups, all_groups - group));
                multiply_tile(weights, tile, segment.matrix, group, plan, segment.first + row);
                next = ggml_threadpool_chunk_add(params->threadpool, 1);
            }
        }
    }
}

}  // namespace own
