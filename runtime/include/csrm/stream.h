// ScoreStream: a turn scored while it is being written.
// Not: the scoring (csrm/scorer.h). Text comes in pieces cut anywhere, even inside a UTF-8
// sequence; at chosen boundaries the turn so far is scored as if it ended there.
//
//   csrm::ScoreStream stream(scorer, config, conversation, {});
//   while (read(&piece)) {
//     auto score = stream.append(piece);
//     if (stream.verdict() == csrm::Verdict::kViolation) break;
//   }
//   auto whole = stream.finish();
#ifndef CSRM_STREAM_H_
#define CSRM_STREAM_H_

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>

#include "csrm/scorer.h"
#include "csrm/status.h"
#include "csrm/types.h"
#include "csrm/visibility.h"

namespace csrm {

// When a stream scores: as soon as one of them holds for the text that is not scored yet.
struct StreamOptions {
  Role role = Role::kAssistant;  // of the turn being written
  size_t every_tokens = 32;      // it has at least so many tokens; 0 = never for this reason
  bool sentence_ends = true;     // a sentence or line ends in it
  bool every_append = false;     // always
};

// For one thread at a time. The earlier turns and the finished blocks of a long turn are encoded
// once (ScoreOptions::reuse_turns); the block being written is encoded anew for every score.
class CSRM_API ScoreStream {
 public:
  // A stream whose turn follows `conversation`, which may be empty. `scorer` must outlive it.
  // Nothing is checked or encoded yet.
  ScoreStream(const Scorer* scorer, Config config, Conversation conversation,
              const StreamOptions& options) noexcept;

  // Adds `text` to the turn; the score of the turn so far if a boundary was reached, else nothing.
  // An incomplete UTF-8 sequence at the end waits for its other bytes. On BadUtf8 the turn is as it
  // was before; after any other error the text stays and is scored with the next append.
  // Errors: BadUtf8, BadArgument (the stream has finished), and those of Scorer::score.
  Result<std::optional<Score>> append(std::string_view text) noexcept;

  // The score of the whole turn, bit for bit what Scorer::score with reuse_turns gives for the
  // finished conversation, which is kept for the next turn. Afterwards the stream has finished;
  // after an error it has not. Errors: BadArgument (it has already), and those of Scorer::score.
  Result<Score> finish() noexcept;

  // Of the newest score; unknown before the first one and after an error.
  Verdict verdict() const noexcept { return verdict_; }

 private:
  Result<bool> is_due() const;
  Result<Score> score(bool is_growing);
  Result<std::optional<Score>> append_checked(std::string_view text);

  const Scorer* scorer_;
  Config config_;
  Conversation conversation_;  // the last turn is the one being written
  StreamOptions options_;
  std::string held_;     // the start of a UTF-8 sequence
  size_t n_scored_ = 0;  // bytes of the turn in the newest score
  bool is_finished_ = false;
  Verdict verdict_ = Verdict::kUnknown;
};

}  // namespace csrm

#endif  // CSRM_STREAM_H_
