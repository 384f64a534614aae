// The tokenizer on small files made here: known ids, broken files, bytes that are no text, and
// threads. Made for the sanitizers: random input must give ids or a typed error, never more.
// Not: equality with Hugging Face (tests/python/tokenizer_oracle.py, bpe_oracle.py).
#include <algorithm>
#include <cstdint>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "check.h"
#include "tokenizer.h"
#include "utf8.h"

namespace {

using csrm::Code;
using csrm::Result;
using csrm::Tokenizer;
using Ids = std::vector<int32_t>;

const std::string kWordPiece = R"({"normalizer": {"type": "BertNormalizer", "clean_text": true,
 "handle_chinese_chars": true, "strip_accents": null, "lowercase": true},
 "pre_tokenizer": {"type": "BertPreTokenizer"},
 "model": {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
  "max_input_chars_per_word": 100, "vocab": {"[UNK]": 0, "un": 1, "##aff": 2, "##able": 3, "a": 4,
  "##b": 5, ".": 6, "中": 7, "e": 8}}})";

// Byte-level BPE spells bytes as printable characters: a byte that is one stands for itself, the
// others for U+0100 and on, in order.
std::string spelt(int byte) {
  const auto is_printable = [](int b) {
    return (b >= '!' && b <= '~') || (b >= 0xA1 && b <= 0xAC) || b >= 0xAE;
  };
  int code_point = byte;
  if (!is_printable(byte)) {
    code_point = 0x100;
    for (int b = 0; b < byte; ++b) code_point += is_printable(b) ? 0 : 1;
  }
  std::string text;
  csrm::append_utf8(static_cast<char32_t>(code_point), &text);
  return text;
}

// Every byte is the token of its number; "ab" is 256, "abc" 257.
std::string bpe_json() {
  std::string vocab;
  for (int byte = 0; byte < 256; ++byte) {
    const std::string text = spelt(byte);
    const bool needs_escape = text == "\"" || text == "\\";
    vocab += (needs_escape ? "\"\\" : "\"") + text + "\": " + std::to_string(byte) + ", ";
  }
  return R"({"pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "use_regex": true},
 "model": {"type": "BPE", "vocab": {)" +
         vocab + R"("ab": 256, "abc": 257}, "merges": ["a b", "ab c"]}})";
}

Ids encoded(const Tokenizer& tokenizer, const std::string& text) {
  Ids ids;
  CHECK(tokenizer.encode(text, &ids).ok());
  return ids;
}

// Text of code points from all of Unicode, many of them such as the normalisers change.
std::string random_text(std::mt19937* random) {
  static const uint32_t kRanges[][2] = {
      {0x00, 0x7F},     {0x80, 0x24F},      {0x300, 0x36F},     {0x600, 0x6FF},
      {0x1E00, 0x20CF}, {0x3000, 0x30FF},   {0x4E00, 0x4EFF},   {0xAC00, 0xD7A3},
      {0xF900, 0xFFFD}, {0x1D100, 0x1F9FF}, {0x2F800, 0x2FA1F}, {0x10FF00, 0x10FFFF}};
  std::string text;
  const size_t n = (*random)() % 40;
  for (size_t i = 0; i < n; ++i) {
    const auto& range = kRanges[(*random)() % std::size(kRanges)];
    csrm::append_utf8(range[0] + (*random)() % (range[1] - range[0] + 1), &text);
    if ((*random)() % 4 == 0) text += "abc unaffable."[(*random)() % 14];
  }
  return text;
}

void test_tokenizer_wordpiece_known_texts_give_known_ids() {
  const Result<Tokenizer> made = Tokenizer::from_json(kWordPiece);
  CHECK(made.ok() && made.value().vocab_size() == 9);
  if (!made.ok()) return;
  const Tokenizer& tokenizer = made.value();
  CHECK((encoded(tokenizer, "unaffable.") == Ids{1, 2, 3, 6}));
  CHECK((encoded(tokenizer, "UNAFFABLE a") == Ids{1, 2, 3, 4}));
  CHECK((encoded(tokenizer, "xyz a") == Ids{0, 4}));
  CHECK((encoded(tokenizer, "\u00E9 e\u0301") == Ids{8, 8}));
  CHECK((encoded(tokenizer, "a\u4E2Da") == Ids{4, 7, 4}));
  CHECK((encoded(tokenizer, std::string("a\0b", 3)) == Ids{4, 5}));
  CHECK(encoded(tokenizer, "") == Ids{} && encoded(tokenizer, " \t\n") == Ids{});
  CHECK(encoded(tokenizer, std::string(100000, 'a')) == Ids{0});
  CHECK(tokenizer.id_of("##b") == 5 && !tokenizer.id_of("b").has_value());
}

void test_tokenizer_bpe_known_texts_give_known_ids() {
  const Result<Tokenizer> made = Tokenizer::from_json(bpe_json());
  CHECK(made.ok() && made.value().vocab_size() == 258);
  if (!made.ok()) return;
  const Tokenizer& tokenizer = made.value();
  CHECK((encoded(tokenizer, "abc") == Ids{257}));
  CHECK((encoded(tokenizer, "ababcb") == Ids{256, 257, 'b'}));
  CHECK((encoded(tokenizer, " ab ") == Ids{' ', 256, ' '}));
  CHECK((encoded(tokenizer, "\u00E9\U0001F600") == Ids{0xC3, 0xA9, 0xF0, 0x9F, 0x98, 0x80}));
  CHECK((encoded(tokenizer, std::string("\0\"\\", 3)) == Ids{0, '"', '\\'}));
  CHECK(encoded(tokenizer, "") == Ids{});
  const Ids many = encoded(tokenizer, std::string(50000, 'a') + "b");
  CHECK(many.size() == 50000 && many.back() == 256);
}

void test_tokenizer_broken_file_is_a_typed_error() {
  CHECK(Tokenizer::from_json("").status().code == Code::kBadArtifact);
  CHECK(Tokenizer::from_json("[]").status().code == Code::kBadArtifact);
  CHECK(Tokenizer::from_json(std::string(100000, '[')).status().code == Code::kBadArtifact);
  std::mt19937 random(3);
  for (const std::string& json : {kWordPiece, bpe_json()}) {
    for (size_t n = 0; n < json.size(); n += 13) {
      CHECK(Tokenizer::from_json(json.substr(0, n)).status().code == Code::kBadArtifact);
    }
    for (int i = 0; i < 500; ++i) {
      std::string changed = json;
      changed[random() % changed.size()] = static_cast<char>(random());
      const Result<Tokenizer> made = Tokenizer::from_json(changed);
      Ids ids;
      if (made.ok()) {
        CHECK(made.value().encode("unaffable abc \u00E9", &ids).ok());
      } else {
        const Code code = made.status().code;
        CHECK(code == Code::kBadArtifact || code == Code::kUnsupported);
      }
    }
  }
}

void test_tokenizer_any_bytes_give_ids_or_bad_utf8(const Tokenizer& tokenizer) {
  std::mt19937 random(5);
  int n_bad = 0;
  for (int i = 0; i < 3000; ++i) {
    std::string text = random_text(&random);
    if (i % 3 == 0 && !text.empty()) text.resize(random() % text.size());  // cut anywhere
    if (i % 3 == 1 && !text.empty()) text[random() % text.size()] = static_cast<char>(random());
    Ids ids{-7};
    const csrm::Status status = tokenizer.encode(text, &ids);
    if (!status.ok()) {
      ++n_bad;
      CHECK(status.code == Code::kBadUtf8 && ids == Ids{-7});
      continue;
    }
    const auto n_vocab = static_cast<int32_t>(tokenizer.vocab_size());
    CHECK(std::all_of(ids.begin() + 1, ids.end(),
                      [&](int32_t id) { return id >= 0 && id < n_vocab; }));
  }
  CHECK(n_bad > 100);
}

void test_tokenizer_several_threads_get_the_same_ids(const Tokenizer& tokenizer) {
  std::mt19937 random(9);
  std::vector<std::string> texts;
  std::vector<Ids> expected;
  for (int i = 0; i < 200; ++i) {
    texts.push_back(random_text(&random));
    expected.push_back(encoded(tokenizer, texts.back()));
  }
  std::vector<std::vector<Ids>> found(4);
  std::vector<std::thread> threads;
  for (std::vector<Ids>& own : found) {
    threads.emplace_back([&] {
      for (const std::string& text : texts) {
        Ids ids;
        if (tokenizer.encode(text, &ids).ok()) own.push_back(std::move(ids));
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (const std::vector<Ids>& own : found) CHECK(own == expected);
}

}  // namespace

int main() {
  test_tokenizer_wordpiece_known_texts_give_known_ids();
  test_tokenizer_bpe_known_texts_give_known_ids();
  test_tokenizer_broken_file_is_a_typed_error();
  for (const std::string& json : {kWordPiece, bpe_json()}) {
    const Result<Tokenizer> tokenizer = Tokenizer::from_json(json);
    if (!tokenizer.ok()) {
      std::printf("%s\n", tokenizer.status().message.c_str());
      continue;  // counted as failed above
    }
    test_tokenizer_any_bytes_give_ids_or_bad_utf8(tokenizer.value());
    test_tokenizer_several_threads_get_the_same_ids(tokenizer.value());
  }
  return csrm_test::summary();
}
