#include "cell_positions.h"

#include "llama-kv-cache-iswa.h"
#include "llama-kv-cache.h"
#include "llama-memory-hybrid-iswa.h"
#include "llama-memory-hybrid.h"

#include <algorithm>
#include <tuple>
#include <unordered_map>

namespace own {

namespace {

// The caches that are watched, by the tensors in which they keep the keys of their layers.
std::unordered_map<const ggml_tensor *, const llama_kv_cache *> & watched() {
    static std::unordered_map<const ggml_tensor *, const llama_kv_cache *> caches;
    return caches;
}

void watch_cache(const llama_kv_cache * cache) {
    for (uint32_t layer : cache->get_layer_ids()) {
        watched()[cache->get_k_storage(static_cast<int32_t>(layer))] = cache;
    }
}

void watch_both(const llama_kv_cache_iswa * caches) {
    watch_cache(caches->get_base());
    watch_cache(caches->get_swa());
}

// The cells of one stream of a K tensor; nullptr if its cache is not watched.
const llama_kv_cells * find_cells(const ggml_tensor * keys, int64_t stream) {
    const ggml_tensor * storage = keys->view_src ? keys->view_src : keys;
    const auto found = watched().find(storage);
    if (found == watched().end()) {
        return nullptr;
    }
    // A view begins at the first stream of the batch. Separate caches number streams as sequences.
    const int64_t first = static_cast<int64_t>(keys->view_offs / keys->nb[3]);
    const int64_t sequence = first + stream;
    return sequence < found->second->get_n_stream()
               ? &found->second->get_cells(static_cast<int32_t>(sequence))
               : nullptr;
}

// Images of M-RoPE models have many cells of one position; their rows and columns tell them apart.
std::tuple<llama_pos, llama_pos, llama_pos> place(const llama_kv_cells & cells, int32_t cell) {
    const llama_kv_cell_ext & ext = cells.ext_get(cell);
    return {cells.pos_get(cell), ext.y, ext.x};
}

}  // namespace

bool watch_memory(llama_memory_i * memory) {
    watched().clear();
    if (const auto * cache = dynamic_cast<llama_kv_cache *>(memory)) {
        watch_cache(cache);
    } else if (const auto * iswa = dynamic_cast<llama_kv_cache_iswa *>(memory)) {
        watch_both(iswa);
    } else if (const auto * hybrid = dynamic_cast<llama_memory_hybrid *>(memory)) {
        watch_cache(hybrid->get_mem_attn());
    } else if (const auto * hybrid_iswa = dynamic_cast<llama_memory_hybrid_iswa *>(memory)) {
        watch_both(hybrid_iswa->get_mem_attn());
    }
    return !watched().empty();
}

int32_t order_cells(const ggml_tensor * keys, int64_t stream, int32_t * cells, int64_t count) {
    const llama_kv_cells * known = find_cells(keys, stream);
    if (!known || count == 0) {
        return -1;
    }
    const auto is_before = [&](int32_t a, int32_t b) {
        const llama_pos at = known->pos_get(a), bt = known->pos_get(b);
        return at != bt ? at < bt : place(*known, a) < place(*known, b);
    };
    bool is_ordered = true;
    for (int64_t each = 0; each < count; each++) {
        if (static_cast<uint32_t>(cells[each]) >= known->size() || known->is_empty(cells[each])) {
            return -1;
        }
        is_ordered = is_ordered && (each == 0 || is_before(cells[each - 1], cells[each]));
    }
    if (!is_ordered) {
        std::stable_sort(cells, cells + count, is_before);
    }
    return known->pos_get(cells[0]);
}

}  // namespace own
