// ScoreStream: where text may be cut and when it is scored. Not: scoring, which is one call of
// Scorer::score per boundary.
#include "csrm/stream.h"

#include <algorithm>
#include <utility>

#include "guarded.h"
#include "utf8.h"

namespace csrm {
namespace {

constexpr std::string_view kBlank = " \t\r\n";

// True if continuation bytes make a whole sequence of `start`: one of the extremes always does.
bool can_be_completed(std::string_view start) {
  const size_t n_missing = utf8_length(static_cast<unsigned char>(start.front())) - start.size();
  const auto is_valid_with = [&](char byte) {
    return find_utf8_error(std::string(start) + std::string(n_missing, byte)) == kNoUtf8Error;
  };
  return is_valid_with('\x80') || is_valid_with('\xBF');
}

// Bytes at the end of `text` that begin a UTF-8 sequence without ending it; at most 3.
size_t incomplete_tail(std::string_view text) {
  for (size_t n = 1; n <= 3 && n <= text.size(); ++n) {
    const auto byte = static_cast<unsigned char>(text[text.size() - n]);
    if ((byte & 0xC0u) == 0x80u) continue;  // a continuation byte
    const bool is_cut = byte >= 0xC0u && utf8_length(byte) > n;
    return is_cut && can_be_completed(text.substr(text.size() - n)) ? n : 0;
  }
  return 0;
}

// True if a line ends in `text`, or a sentence: . ! or ? and white space, quotes and brackets may
// close in between; the full-width marks of Chinese and Japanese need no space.
bool has_sentence_end(std::string_view text) {
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '\n') return true;
    const std::string_view wide = text.substr(i, 3);
    if (wide == "\u3002" || wide == "\uFF01" || wide == "\uFF1F") return true;
    if (text[i] != '.' && text[i] != '!' && text[i] != '?') continue;
    const size_t next = text.find_first_not_of("\"')]", i + 1);
    if (next != std::string_view::npos && kBlank.find(text[next]) != std::string_view::npos) {
      return true;
    }
  }
  return false;
}

}  // namespace

ScoreStream::ScoreStream(const Scorer* scorer, Config config, Conversation conversation,
                         const StreamOptions& options) noexcept
    : scorer_(scorer),
      config_(std::move(config)),
      conversation_(std::move(conversation)),
      options_(options) {
  conversation_.push_back({options.role, {}});
}

Result<std::optional<Score>> ScoreStream::append(std::string_view text) noexcept {
  auto score = guarded<Result<std::optional<Score>>>([&] { return append_checked(text); });
  if (!score.ok()) verdict_ = Verdict::kUnknown;
  return score;
}

Result<std::optional<Score>> ScoreStream::append_checked(std::string_view text) {
  if (is_finished_) {
    return {Code::kBadArgument, "the stream has finished; open another one for the next turn"};
  }
  std::string whole = held_;
  whole.append(text);
  const size_t n_held = incomplete_tail(whole);
  std::string held = whole.substr(whole.size() - n_held);
  whole.resize(whole.size() - n_held);
  if (const size_t at = find_utf8_error(whole); at != kNoUtf8Error) {
    return {Code::kBadUtf8, "the appended text is not UTF-8 at byte " + std::to_string(at) +
                                " after what was taken before; it was not taken"};
  }
  conversation_.back().content.append(whole);
  held_.swap(held);
  const Result<bool> due = is_due();
  if (!due.ok()) return due.status();
  if (!due.value()) return std::optional<Score>();
  Result<Score> scored = score(true);
  if (!scored.ok()) return scored.status();
  n_scored_ = conversation_.back().content.size();
  return std::optional<Score>(std::move(scored).value());
}

Result<bool> ScoreStream::is_due() const {
  std::string_view text = std::string_view(conversation_.back().content).substr(n_scored_);
  text.remove_prefix(std::min(text.find_first_not_of(kBlank), text.size()));
  const bool is_end = options_.every_append || (options_.sentence_ends && has_sentence_end(text));
  if (!is_end && options_.every_tokens == 0) return false;
  const Result<size_t> n_tokens = scorer_->count_tokens(text);
  if (!n_tokens.ok()) return n_tokens.status();
  if (n_tokens.value() == 0) return false;
  return is_end || n_tokens.value() >= options_.every_tokens;
}

Result<Score> ScoreStream::finish() noexcept {
  auto scored = guarded<Result<Score>>([&]() -> Result<Score> {
    if (is_finished_) {
      return {Code::kBadArgument, "the stream has finished already; open another one"};
    }
    if (!held_.empty()) {
      return {Code::kBadUtf8, "the turn ends inside a UTF-8 sequence; append its other bytes"};
    }
    return score(false);
  });
  is_finished_ = is_finished_ || scored.ok();
  if (!scored.ok()) verdict_ = Verdict::kUnknown;
  return scored;
}

Result<Score> ScoreStream::score(bool is_growing) {
  verdict_ = Verdict::kUnknown;
  ScoreOptions options;
  options.reuse_turns = true;
  options.is_growing = is_growing;
  Result<Score> scored = scorer_->score(config_, conversation_, options);
  if (scored.ok()) verdict_ = scored.value().verdict;
  return scored;
}

}  // namespace csrm
