#include "config_blocks.h"

#include <algorithm>

#include "limit_error.h"

namespace csrm {
namespace {

constexpr size_t kMaxRecentConfigs = 64;

Sha256Digest digest_of(const std::vector<Rule>& rules) {
  Sha256 hash;
  hash.update_u64(rules.size());
  for (const Rule& rule : rules) {
    hash.update_u64(rule.name.size());
    hash.update(rule.name.data(), rule.name.size());
    hash.update_u64(rule.text.size());
    hash.update(rule.text.data(), rule.text.size());
  }
  return hash.finish();
}

Status check_sizes(const std::vector<Rule>& rules, const Limits& limits) {
  if (rules.empty()) {
    return {Code::kEmptyConfig, "the config has 0 rules; give at least one rule with text"};
  }
  if (rules.size() > limits.max_rules) {
    return limit_exceeded("rules in a config:", rules.size(), limits.max_rules, "max_rules",
                          "split the config");
  }
  for (size_t r = 0; r < rules.size(); ++r) {
    const size_t n_bytes = std::max(rules[r].name.size(), rules[r].text.size());
    if (n_bytes > limits.max_text_bytes) {
      return limit_exceeded("bytes in rule " + std::to_string(r) + ":", n_bytes,
                            limits.max_text_bytes, "max_text_bytes", "split the rule");
    }
  }
  return Status::success();
}

Status check_tokens(const ConfigBlocks& config, const Limits& limits) {
  if (config.all_tokens.ids.size() <= limits.max_config_tokens) return Status::success();
  return limit_exceeded("tokens in a config: at least", config.all_tokens.ids.size(),
                        limits.max_config_tokens, "max_config_tokens",
                        "shorten or split the config");
}

Status render_causal(const ConfigRendering& rendering, const std::vector<Rule>& rules,
                     ConfigBlocks* config) {
  Status status =
      render_chat_config(*rendering.tokenizer, rendering.layout.chat, rules, &config->blocks);
  if (!status.ok()) return status;
  for (const Block& block : config->blocks) config->all_tokens.append(block);
  if (Status bad = check_tokens(*config, rendering.limits); !bad.ok()) return bad;
  config->all_key = make_cache_key(rendering.artifact, rendering.tenant_salt, config->all_tokens);
  return check_positions(config->all_tokens.ids.size(), rendering.layout.max_positions);
}

Status render_blocks(const ConfigRendering& rendering, const std::vector<Rule>& rules,
                     ConfigBlocks* config) {
  const auto key_of = [&](const PrefixTokens& tokens) {
    return make_cache_key(rendering.artifact, rendering.tenant_salt, tokens);
  };
  for (size_t r = 0; r < rules.size(); ++r) {
    config->rule_begin.push_back(config->blocks.size());
    Status status =
        render_rule(*rendering.tokenizer, rendering.layout.blocks, rules[r], r, &config->blocks);
    if (!status.ok()) return status;
    for (size_t b = config->rule_begin.back(); b < config->blocks.size(); ++b) {
      config->all_tokens.append(config->blocks[b]);
      config->tokens.emplace_back();
      config->tokens.back().append(config->blocks[b]);
      config->keys.push_back(key_of(config->tokens.back()));
    }
    if (Status bad = check_tokens(*config, rendering.limits); !bad.ok()) return bad;
  }
  config->rule_begin.push_back(config->blocks.size());
  config->all_key = key_of(config->all_tokens);
  return Status::success();
}

}  // namespace

Result<std::shared_ptr<const ConfigBlocks>> ConfigRenderer::render(const std::vector<Rule>& rules) {
  if (Status bad = check_sizes(rules, rendering_.limits); !bad.ok()) return bad;
  const Sha256Digest text_digest = digest_of(rules);
  if (auto known = find(text_digest); known != nullptr) return known;
  auto config = std::make_shared<ConfigBlocks>();
  const auto render_all = rendering_.layout.is_causal ? &render_causal : &render_blocks;
  if (Status bad = render_all(rendering_, rules, config.get()); !bad.ok()) return bad;
  std::shared_ptr<const ConfigBlocks> rendered = std::move(config);
  const std::lock_guard<std::mutex> lock(mutex_);
  recent_.emplace_front(text_digest, rendered);
  if (recent_.size() > kMaxRecentConfigs) recent_.pop_back();
  return rendered;
}

std::shared_ptr<const ConfigBlocks> ConfigRenderer::find(const Sha256Digest& text_digest) {
  const std::lock_guard<std::mutex> lock(mutex_);
  const auto found = std::find_if(recent_.begin(), recent_.end(),
                                  [&](const Entry& entry) { return entry.first == text_digest; });
  if (found == recent_.end()) return nullptr;
  recent_.splice(recent_.begin(), recent_, found);
  return found->second;
}

void ConfigRenderer::clear() {
  const std::lock_guard<std::mutex> lock(mutex_);
  recent_.clear();
}

}  // namespace csrm
