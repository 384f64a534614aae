#include "prefix_encoder.h"

#include <utility>

#include "batch.h"

namespace csrm {

Result<std::shared_ptr<const Prefix>> PrefixEncoder::config_prefix(
    const ConfigBlocks& config) const {
  if (is_causal_) return causal_prefix(config);
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

Result<std::shared_ptr<const Prefix>> PrefixEncoder::causal_prefix(
    const ConfigBlocks& config) const {
  if (auto known = cache_->find(config.all_key, config.all_tokens); known != nullptr) return known;
  Prefix whole;
  whole.key.reserve(config.all_tokens.ids.size() * shape_.floats_per_token());
  whole.value.reserve(config.all_tokens.ids.size() * shape_.floats_per_token());
  for (const Block& block : config.blocks) {
    const size_t n = block.ids.size();
    EncodeInput input = pack_rows({{&block, 1, n, {}}}, {0}, {true, whole.n_tokens});
    input.want_key_value = true;
    set_prefix(whole, &input);
    EncodeOutput output;
    if (Status bad = engine_->encode(input, &output); !bad.ok()) return bad;
    append_row(shape_, {output.key, output.value, 0, n, n}, &whole);
  }
  if (!is_finite(whole)) {
    return {Code::kNonFinite,
            "the model gave a key or value that is not finite for the config; nothing is scored "
            "with it"};
  }
  whole.tokens = config.all_tokens;
  auto kept = std::make_shared<const Prefix>(std::move(whole));
  cache_->insert(config.all_key, kept);
  return kept;
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
    EncodeInput input = pack_rows(rows, indices, {});
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
