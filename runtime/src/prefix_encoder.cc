#include "prefix_encoder.h"

#include <utility>

#include "batch.h"

namespace csrm {

Result<std::shared_ptr<const Prefix>> PrefixEncoder::config_prefix(
    const ConfigBlocks& config) const {
  // The prefix of a single block is that block: same tokens, same key, one entry.
  const bool is_single = config.blocks.size() == 1;
  if (!is_single) {
    if (auto known = cache_->find(config.all_key, config.all_tokens); known != nullptr) {
      return known;
    }
  }
  Result<Parts> parts = block_prefixes(config, 0, config.blocks.size());
  if (!parts.ok()) return parts.status();
  if (is_single) return parts.value().front();
  auto whole = std::make_shared<const Prefix>(join_prefixes(shape_, parts.value()));
  cache_->insert(config.all_key, whole);
  return whole;
}

Result<std::shared_ptr<const Prefix>> PrefixEncoder::rule_prefix(const ConfigBlocks& config,
                                                                 size_t rule) const {
  Result<Parts> parts =
      block_prefixes(config, config.rule_begin[rule], config.rule_begin[rule + 1]);
  if (!parts.ok()) return parts.status();
  if (parts.value().size() == 1) return parts.value().front();
  return std::make_shared<const Prefix>(join_prefixes(shape_, parts.value()));
}

Result<PrefixEncoder::Parts> PrefixEncoder::block_prefixes(const ConfigBlocks& config, size_t begin,
                                                           size_t end) const {
  Parts parts(end - begin);
  std::vector<size_t> missing;
  for (size_t b = begin; b < end; ++b) {
    parts[b - begin] = cache_->find(config.keys[b], config.tokens[b]);
    if (parts[b - begin] == nullptr) missing.push_back(b);
  }
  if (Status bad = encode_missing(config, missing, begin, &parts); !bad.ok()) return bad;
  return parts;
}

Status PrefixEncoder::encode_missing(const ConfigBlocks& config, const std::vector<size_t>& missing,
                                     size_t begin, Parts* parts) const {
  std::vector<Row> rows;
  for (const size_t b : missing) {
    rows.push_back({&config.blocks[b], 1, config.blocks[b].ids.size(), {}});
  }
  for (const std::vector<size_t>& indices : plan_batches(rows, {batch_tokens_, 0})) {
    EncodeInput input = pack_rows(rows, indices);
    input.want_key_value = true;
    EncodeOutput output;
    if (Status bad = engine_->encode(input, &output); !bad.ok()) return bad;
    for (size_t i = 0; i < indices.size(); ++i) {
      const size_t b = missing[indices[i]];
      Prefix prefix = prefix_from_row(
          shape_, {output.key, output.value, i, static_cast<size_t>(input.row_tokens),
                   rows[indices[i]].n_tokens});
      if (!is_finite(prefix)) {
        return {Code::kNonFinite, "the model gave a key or value that is not finite for rule " +
                                      std::to_string(config.blocks[b].source) +
                                      "; nothing is scored with it"};
      }
      prefix.tokens = config.tokens[b];
      auto kept = std::make_shared<const Prefix>(std::move(prefix));
      cache_->insert(config.keys[b], kept);
      (*parts)[b - begin] = std::move(kept);
    }
  }
  return Status::success();
}

}  // namespace csrm
