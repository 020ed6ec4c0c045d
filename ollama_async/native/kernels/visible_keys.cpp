#include "visible_keys.h"

#include "cell_positions.h"

#include <algorithm>
#include <array>
#include <climits>
#include <cstring>
#include <numeric>
#include <utility>

namespace own {

namespace {

constexpr ggml_fp16_t masked = 0xFC00;  // minus infinity
constexpr int64_t rows_per_part = 64;

// Cells in the order of their positions; rows see ranges of them. The first entries may be padding.
struct List {
    std::vector<int32_t> cells;
    int32_t stream;
    int32_t origin;  // the first key of the sequence, where cells are numbered by position
};

// Rows that one thread looks at together, and their lists.
struct Part {
    std::vector<List> lists;
    std::vector<VisibleRow> rows;
    std::vector<size_t> list_of_row;
    std::vector<int32_t> cells;  // of the current row
};

// What is known of the rows of one mask in one graph.
struct Known {
    const ggml_tensor * first_op = nullptr;
    const ggml_tensor * mask = nullptr;  // its memory may be another one's in the next layer
    std::array<int64_t, 3> shape = {};   // keys, rows, streams
    uint64_t plan = 0;
    std::vector<Part> parts;
    VisibleRows rows;
};

// Each thread that computes graphs has its own: they are planned, and begun, by one and the same.
// A model with sliding windows has two masks.
thread_local std::array<Known, 4> entries;
thread_local uint64_t plans = 1;

std::array<int64_t, 3> score_shape(const ggml_tensor * op) {
    const ggml_tensor * queries = op->src[0];
    return {op->src[1]->ne[1], queries->ne[1], queries->ne[3]};
}

const ggml_fp16_t * mask_row(const ggml_tensor * mask, int64_t row, int64_t stream) {
    return reinterpret_cast<const ggml_fp16_t *>(
        static_cast<const char *>(mask->data) + row * mask->nb[1] +
        stream % mask->ne[3] * mask->nb[3]);
}

// Append the visible cells of a row of a mask; true if one of them has a bias.
bool read_mask(const ggml_fp16_t * mask, int64_t count, std::vector<int32_t> & cells) {
    constexpr int64_t step = 32;
    cells.resize(static_cast<size_t>(count + step));
    int32_t * out = cells.data();
    uint32_t bias = 0;
    const auto read = [&](int64_t at) {
        const bool is_visible = mask[at] != masked;
        *out = static_cast<int32_t>(at);
        out += is_visible;
        bias |= is_visible ? mask[at] & 0x7FFFu : 0u;
    };
    int64_t at = 0;
    for (; at + step <= count; at += step) {
        uint32_t differs = 0;
        for (int64_t each = at; each < at + step; each++) {
            differs |= static_cast<uint32_t>(mask[each] ^ masked);
        }
        for (int64_t each = at; differs && each < at + step; each++) {
            read(each);
        }
    }
    for (; at < count; at++) {
        read(at);
    }
    cells.resize(static_cast<size_t>(out - cells.data()));
    return bias != 0;
}

// Where the cells of a row begin in `list`, if they are a part of it or go on beyond its end; or
// -1. Rows mostly see what the row before has seen, or a window one further.
int64_t find_in(
    const List & list, const std::vector<int32_t> & cells, int32_t padding, int64_t hint) {
    const auto size = static_cast<int64_t>(list.cells.size());
    for (int64_t begin = hint; begin < std::min(size, hint + 2); begin++) {
        if (list.cells[begin] == cells[0] && begin % tile_keys == padding) {
            const size_t common = std::min<size_t>(cells.size(), size - begin);
            const bool fits =
                std::memcmp(&list.cells[begin], cells.data(), common * sizeof(int32_t)) == 0;
            return fits ? begin : -1;
        }
    }
    return -1;
}

// The first key of the sequence of which key `cell` is one, where rows and keys are the same
// tokens: a row sees no key of another sequence, and maybe not all of its own.
int32_t find_origin(const ggml_tensor * mask, int64_t stream, int32_t cell) {
    for (;;) {
        const ggml_fp16_t * row = mask_row(mask, cell, stream);
        const auto first = static_cast<int32_t>(
            std::find_if(row, row + cell, [](ggml_fp16_t bias) { return bias != masked; }) - row);
        if (first == cell) {
            return cell;
        }
        cell = first;
    }
}

// Keys that are in no cache, as in an encoder, are in the order of their positions.
int32_t find_position(
    const Part & part, const ggml_tensor * op, int64_t stream, int32_t cell, int32_t & origin) {
    const ggml_tensor *queries = op->src[0], *keys = op->src[1], *mask = op->src[3];
    origin = cell;
    if (mask && keys->ne[1] == queries->ne[1]) {
        const bool is_known =
            !part.lists.empty() && part.lists.back().stream == stream &&
            part.rows.back().end > part.rows.back().begin &&
            std::binary_search(
                part.lists.back().cells.begin(), part.lists.back().cells.end(), cell);
        origin = is_known ? part.lists.back().origin : find_origin(mask, stream, cell);
    }
    return cell - origin;
}

void add_row(Part & part, const ggml_tensor * op, int64_t stream, int64_t row, bool has_bias) {
    std::vector<int32_t> & cells = part.cells;
    const auto count = static_cast<int32_t>(cells.size());
    int32_t position = order_cells(op->src[1], stream, cells.data(), count);
    int32_t origin = 0;
    if (position < 0) {
        position = count ? find_position(part, op, stream, cells[0], origin) : 0;
    }
    const int32_t padding = position % tile_keys;
    int64_t begin = -1;
    if (count && !part.rows.empty() && part.lists.back().stream == stream) {
        begin = find_in(part.lists.back(), cells, padding, part.rows.back().begin);
    }
    if (begin < 0) {
        begin = padding;
        part.lists.push_back({{}, static_cast<int32_t>(stream), origin});
        part.lists.back().cells.assign(static_cast<size_t>(padding), count ? cells[0] : 0);
    }
    std::vector<int32_t> & all = part.lists.back().cells;
    const auto known = static_cast<int64_t>(all.size()) - begin;
    if (count > known) {
        all.insert(all.end(), cells.begin() + known, cells.end());
    }
    const auto from = static_cast<int32_t>(begin);
    part.rows.push_back(
        {nullptr, from, from + count, static_cast<int32_t>(stream), static_cast<int32_t>(row),
         INT_MAX, has_bias});
    part.list_of_row.push_back(part.lists.size() - 1);
}

void build_part(Part & part, const ggml_tensor * op, int64_t index) {
    const ggml_tensor * mask = op->src[3];
    const int64_t keys = op->src[1]->ne[1];
    const int64_t rows = op->src[0]->ne[1];
    const int64_t all = rows * op->src[0]->ne[3];
    part.lists.clear();
    part.rows.clear();
    part.list_of_row.clear();
    for (int64_t each = index * rows_per_part; each < std::min(all, (index + 1) * rows_per_part);
         each++) {
        const int64_t stream = each / rows, row = each % rows;
        bool has_bias = false;
        if (mask) {
            has_bias = read_mask(mask_row(mask, row, stream), keys, part.cells);
        } else {
            part.cells.resize(static_cast<size_t>(keys));
            std::iota(part.cells.begin(), part.cells.end(), 0);
        }
        add_row(part, op, stream, row, has_bias);
    }
}

// The first tile in which two lists differ; INT_MAX if one is the beginning of the other.
int32_t first_difference(const List & a, const List & b) {
    if (a.stream != b.stream) {
        return 0;
    }
    const size_t common = std::min(a.cells.size(), b.cells.size());
    const auto differs = std::mismatch(a.cells.begin(), a.cells.begin() + common, b.cells.begin());
    const auto equal = static_cast<size_t>(differs.first - a.cells.begin());
    return equal == common ? INT_MAX : static_cast<int32_t>(equal / tile_keys);
}

// Put the rows of all parts together, lists with a common beginning beside each other.
void join_parts(Known & known) {
    struct Group {
        const List * list;
        const Part * part;
        size_t index;
    };
    std::vector<Group> groups;
    for (const Part & part : known.parts) {
        for (size_t index = 0; index < part.lists.size(); index++) {
            groups.push_back({&part.lists[index], &part, index});
        }
    }
    std::stable_sort(groups.begin(), groups.end(), [](const Group & a, const Group & b) {
        return a.list->stream != b.list->stream ? a.list->stream < b.list->stream
                                                : a.list->cells < b.list->cells;
    });
    known.rows.clear();
    const List * before = nullptr;
    for (const Group & group : groups) {
        int32_t split = before ? first_difference(*before, *group.list) : 0;
        for (size_t row = 0; row < group.part->rows.size(); row++) {
            if (group.part->list_of_row[row] == group.index) {
                known.rows.push_back(group.part->rows[row]);
                known.rows.back().cells = group.list->cells.data();
                known.rows.back().split = split;
                split = INT_MAX;
            }
        }
        before = group.list;
    }
}

// The entry for `op`, and whether it has to be computed.
std::pair<Known *, bool> choose_entry(const ggml_tensor * op) {
    thread_local size_t oldest = 0;
    const ggml_tensor * mask = op->src[3];
    const auto shape = score_shape(op);
    const auto is_of_op = [&](const Known & known) {
        return known.mask == mask && known.shape == shape;
    };
    auto found = std::find_if(entries.begin(), entries.end(), is_of_op);
    if (found == entries.end()) {
        found = entries.begin() + oldest++ % entries.size();
    } else if (found->plan == plans && found->first_op != op && mask) {
        return {found, false};
    }
    found->first_op = op;
    found->mask = mask;
    found->shape = shape;
    found->plan = plans;
    return {found, true};
}

}  // namespace

void forget_visible_keys() {
    plans++;
}

const VisibleRows & find_visible_keys(const ggml_compute_params * params, const ggml_tensor * op) {
    struct Choice {
        Known * known;
        bool is_stale;
    };
    auto * choice = static_cast<Choice *>(params->wdata);
    if (params->ith == 0) {
        const auto [known, is_stale] = choose_entry(op);
        *choice = {known, is_stale};
        if (is_stale) {
            const int64_t rows = op->src[0]->ne[1] * op->src[0]->ne[3];
            known->parts.resize(static_cast<size_t>((rows + rows_per_part - 1) / rows_per_part));
        }
        ggml_threadpool_chunk_set(params->threadpool, params->nth);
    }
    ggml_barrier(params->threadpool);
    Known & known = *choice->known;
    if (!choice->is_stale) {
        return known.rows;
    }
    const auto parts = static_cast<int64_t>(known.parts.size());
    for (int64_t part = params->ith; part < parts;
         part = ggml_threadpool_chunk_add(params->threadpool, 1)) {
        build_part(known.parts[part], op, part);
    }
    ggml_barrier(params->threadpool);
    if (params->ith == 0) {
        join_parts(known);
        ggml_threadpool_chunk_set(params->threadpool, params->nth);
    }
    ggml_barrier(params->threadpool);
    return known.rows;
}

}  // namespace own
