#include "prefix_encoder.h"

#include <utility>

namespace csrm {

Result<std::shared_ptr<const Prefix>> PrefixEncoder::config_prefix(
    const ConfigBlocks& config) const {
  return build(config, kWholeConfig);
}

Result<std::shared_ptr<const Prefix>> PrefixEncoder::rule_prefix(const ConfigBlocks& config,
                                                                 size_t rule) const {
  return build(config, rule);
}

Result<std::shared_ptr<const Prefix>> PrefixEncoder::build(const ConfigBlocks& config,
                                                           size_t rule) const {
  PrefixBuild build = start(config, rule, batch_tokens_);
  while (build.result() == nullptr) {
    if (Status bad = build.step(); !bad.ok()) return bad;
  }
  return build.result();
}

PrefixBuild::PrefixBuild(const PrefixEncoder* encoder, const ConfigBlocks* config, size_t rule,
                         size_t batch_tokens)
    : encoder_(encoder),
      config_(config),
      begin_(rule == kWholeConfig ? 0 : config->rule_begin[rule]),
      end_(rule == kWholeConfig ? config->blocks.size() : config->rule_begin[rule + 1]),
      // The prefix of a single block is that block: same tokens, same key, one entry.
      is_whole_(rule == kWholeConfig && (encoder->is_causal_ || config->blocks.size() > 1)) {
  if (is_whole_) result_ = encoder_->cache_->find(config_->all_key, config_->all_tokens);
  if (result_ != nullptr) return;
  if (!encoder_->is_causal_) {
    find_parts(batch_tokens);
    return;
  }
  reserve_tokens(encoder_->shape_, config_->all_tokens.ids.size(), &sequence_);
}

Status PrefixBuild::step() {
  if (result_ != nullptr) return Status::success();
  Status status = encoder_->is_causal_ ? encode_next_block() : encode_parts();
  ++n_steps_;
  return status;
}

void PrefixBuild::find_parts(size_t batch_tokens) {
  for (size_t b = begin_; b < end_; ++b) {
    parts_.push_back(encoder_->cache_->find(config_->keys[b], config_->tokens[b]));
    if (parts_.back() != nullptr) continue;
    missing_.push_back(b);
    rows_.push_back({&config_->blocks[b], 1, config_->blocks[b].ids.size(), {}});
  }
  batches_ = plan_batches(rows_, {batch_tokens, 0});
  if (batches_.empty()) join_parts();
}

void PrefixBuild::join_parts() {
  if (parts_.size() == 1) {
    result_ = parts_.front();
    return;
  }
  result_ = std::make_shared<const Prefix>(join_prefixes(encoder_->shape_, parts_));
  if (is_whole_) encoder_->cache_->insert(config_->all_key, result_);
}

Status PrefixBuild::encode_parts() {
  const std::vector<size_t>& indices = batches_[n_steps_];
  EncodeInput input = pack_rows(rows_, indices, {});
  input.want_key_value = true;
  EncodeOutput output;
  if (Status bad = encoder_->engine_->encode(input, &output); !bad.ok()) return bad;
  for (size_t i = 0; i < indices.size(); ++i) {
    const size_t b = missing_[indices[i]];
    Prefix prefix = prefix_from_row(
        encoder_->shape_, {output.key, output.value, i, static_cast<size_t>(input.row_tokens),
                           rows_[indices[i]].n_tokens});
    if (!is_finite(encoder_->shape_, prefix)) {
      return {Code::kNonFinite, "the model gave a key or value that is not finite for rule " +
                                    std::to_string(config_->blocks[b].source) +
                                    "; nothing is scored with it"};
    }
    prefix.tokens = config_->tokens[b];
    auto kept = std::make_shared<const Prefix>(std::move(prefix));
    encoder_->cache_->insert(config_->keys[b], kept);
    parts_[b - begin_] = std::move(kept);
  }
  if (n_steps_ + 1 == batches_.size()) join_parts();
  return Status::success();
}

Status PrefixBuild::encode_next_block() {
  const Block& block = config_->blocks[n_steps_];
  const size_t n = block.ids.size();
  EncodeInput input = pack_rows({{&block, 1, n, {}}}, {0}, {true, sequence_.n_tokens});
  input.want_key_value = true;
  set_prefix(sequence_, &input);
  EncodeOutput output;
  if (Status bad = encoder_->engine_->encode(input, &output); !bad.ok()) return bad;
  append_row(encoder_->shape_, {output.key, output.value, 0, n, n}, &sequence_);
  if (n_steps_ + 1 < config_->blocks.size()) return Status::success();
  if (!is_finite(encoder_->shape_, sequence_)) {
    return {Code::kNonFinite,
            "the model gave a key or value that is not finite for the config; nothing is scored "
            "with it"};
  }
  sequence_.tokens = config_->all_tokens;
  result_ = std::make_shared<const Prefix>(std::move(sequence_));
  encoder_->cache_->insert(config_->all_key, result_);
  return Status::success();
}

}  // namespace csrm
