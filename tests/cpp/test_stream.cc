// ScoreStream with a model: text cut inside UTF-8 sequences. Needs an artifact folder and an engine
// library on the command line. The rest: tests/python/test_stream.py.
#include <cstdio>
#include <string>

#include "check.h"
#include "csrm/stream.h"

namespace {

using csrm::Code;
using csrm::ScoreStream;

const csrm::Config kConfig{{{"", "Never promise a refund."}}, 0.5};
const csrm::Conversation kChat{{csrm::Role::kUser, "hello"}};
const std::string kText = "a \xC3\xA9 \xE2\x82\xAC \xF0\x9F\x98\x80 b";

void test_stream_bytes_one_by_one_equal_the_whole(const csrm::Scorer& scorer) {
  csrm::StreamOptions options;
  options.every_append = true;
  ScoreStream stream(&scorer, kConfig, kChat, options);
  for (const char byte : kText) CHECK(stream.append(std::string(1, byte)).ok());
  csrm::Conversation whole = kChat;
  whole.push_back({csrm::Role::kAssistant, kText});
  csrm::ScoreOptions reuse;
  reuse.reuse_turns = true;
  const auto expected = scorer.score(kConfig, whole, reuse);
  const auto finished = stream.finish();
  CHECK(expected.ok() && finished.ok());
  CHECK(finished.value().reward == expected.value().reward);
  CHECK(finished.value().scored_tokens == expected.value().scored_tokens);
}

void test_stream_incomplete_sequence_is_held_back(const csrm::Scorer& scorer) {
  ScoreStream stream(&scorer, kConfig, kChat, {});
  CHECK(stream.append("a \xE2\x82").ok());
  CHECK(stream.finish().status().code == Code::kBadUtf8);
  CHECK(stream.append("b").status().code == Code::kBadUtf8);  // not a continuation: not taken
  CHECK(stream.append("\xAC").ok());
  CHECK(stream.append("\xFF").status().code == Code::kBadUtf8);
  CHECK(stream.append("\x80").status().code == Code::kBadUtf8);
  CHECK(stream.append("\xE0\x80").status().code == Code::kBadUtf8);  // overlong
  CHECK(stream.append("\xED\x9F").ok() && stream.append("\xBF").ok());
  CHECK(stream.verdict() == csrm::Verdict::kUnknown);
  CHECK(stream.finish().ok());
  CHECK(stream.verdict() != csrm::Verdict::kUnknown);
  CHECK(stream.append("c").status().code == Code::kBadArgument);
  CHECK(stream.finish().status().code == Code::kBadArgument);
}

}  // namespace

int main(int argc, char** argv) {
  CHECK(csrm::StreamOptions{}.every_tokens == 32);
  if (argc == 3) {
    csrm::ScorerOptions options;
    options.engine_library = argv[2];
    options.n_threads = 1;
    const auto scorer = csrm::Scorer::load(argv[1], options);
    CHECK(scorer.ok());
    if (!scorer.ok()) {
      std::printf("%s\n", scorer.status().message.c_str());
      return csrm_test::summary();
    }
    test_stream_bytes_one_by_one_equal_the_whole(*scorer.value());
    test_stream_incomplete_sequence_is_held_back(*scorer.value());
  } else {
    csrm_test::skip(2, csrm_test::kNeedsModel);
  }
  return csrm_test::summary();
}
