// The nouns of csrm in C++: Rule, Config, Turn, Conversation, Score and the options of a Scorer.
// Not: parsing (Python's csrm.config) and not tokens (runtime/src/render.h). Plain data, no
// methods.
#ifndef CSRM_TYPES_H_
#define CSRM_TYPES_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace csrm {

// One clause of a config. `name` may be empty; `text` forbids or allows something in plain words.
struct Rule {
  std::string name;  // UTF-8
  std::string text;  // UTF-8
};

struct Config {
  std::vector<Rule> rules;
  double threshold = 0.5;  // compliant if and only if compliance >= threshold; in [0, 1]
};

enum class Role : int { kSystem = 0, kUser = 1, kAssistant = 2, kTool = 3 };

struct Turn {
  Role role;
  std::string content;  // UTF-8
};

using Conversation = std::vector<Turn>;

enum class Judged : int { kLast = 0, kAssistant = 1 };

// Whether each rule is also scored on its own. kExact reads the conversation anew under every rule.
// kFast reads anew only the tokens that the config changes most, which is several times cheaper and
// an approximation; encoders only (docs/datapath.md, "Fast explanations").
enum class Explain : int { kNone = 0, kExact = 1, kFast = 2 };

// No default: a verdict is always stated. kUnknown goes with a failure and is never compliant.
enum class Verdict : int { kUnknown = 0, kCompliant = 1, kViolation = 2 };

// Reward and compliance of one judged turn (minimum over its chunks).
struct TurnScore {
  size_t turn;       // index in the conversation
  float reward;      // log-odds that the turn complies
  float compliance;  // calibrated probability, sigmoid(a * reward + b)
};

// The same for one rule on its own (explain).
struct RuleScore {
  size_t rule;  // index in the config
  float reward;
  float compliance;
  Verdict verdict;
};

struct Score {
  float reward;      // minimum over the judged turns
  float compliance;  // of that minimum
  Verdict verdict;
  std::vector<TurnScore> turns;  // every judged turn, in order
  std::vector<RuleScore> rules;  // empty unless ScoreOptions::explain
  size_t scored_tokens = 0;      // conversation tokens encoded, control ids included
};

struct ScoreOptions {
  Judged judged = Judged::kLast;
  Explain explain = Explain::kNone;
  // Encode every turn on its own over the earlier ones and keep them in the prefix cache, so that a
  // call with the same leading turns encodes only what is new. The reward differs from an ordinary
  // one by float rounding only. RuleScores are made as without it.
  bool reuse_turns = false;
  // With reuse_turns: the last turn is still being written. Its last block is not kept.
  bool is_growing = false;
};

// Upper bounds of one call. Exceeding one is LimitExceeded, never a truncation.
struct Limits {
  size_t max_text_bytes = 4u << 20;        // one rule or one turn
  size_t max_rules = 10000;                // rules in a config
  size_t max_turns = 2000;                 // turns in a conversation
  size_t max_config_tokens = 65536;        // rendered tokens of all rules
  size_t max_conversation_tokens = 32768;  // rendered tokens of all turns
  size_t max_batch = 4096;                 // conversations in a call
};

struct ScorerOptions {
  std::string engine_library;   // path of libonnxruntime.so; empty = searched, see csrm.h
  int n_threads = 0;            // engine threads; 0 = physical cores
  size_t cache_tokens = 16384;  // bound of the prefix cache, in tokens; 0 = none
  size_t batch_tokens = 4096;   // padded tokens (rows x longest) encoded in one engine call
  std::string variant;          // "" = best available, "portable", "fused", "half", "int8", "cuda"
  std::string tenant_salt;      // keeps cache entries of tenants apart
  // "cpu", "cuda", "tensorrt"; "" or "auto" = the first of docs/gpu.md's order that is to be had
  std::string device;
  bool allow_spinning = false;  // engine threads spin: faster alone, slower beside others
  Limits limits;
};

}  // namespace csrm

#endif  // CSRM_TYPES_H_
