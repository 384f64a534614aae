// SHA-256 against the vectors of FIPS 180-4 and NIST CAVP, on both code paths and on split updates.
#include <string>
#include <vector>

#include "check.h"
#include "sha256.h"

namespace {

std::string digest_of(const std::string& text, csrm::Sha256Path path) {
  csrm::Sha256 hash(path);
  hash.update(text.data(), text.size());
  return csrm::to_hex(hash.finish());
}

void test_sha256_known_vectors_match() {
  const struct {
    std::string text;
    const char* hex;
  } cases[] = {
      {"", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"},
      {"abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"},
      {"abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq",
       "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1"},
      {std::string(1000000, 'a'),
       "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0"},
  };
  for (const auto& c : cases) {
    CHECK(digest_of(c.text, csrm::Sha256Path::kBest) == c.hex);
    CHECK(digest_of(c.text, csrm::Sha256Path::kPortable) == c.hex);
  }
}

void test_sha256_every_length_and_split_paths_agree() {
  std::string text;
  for (int i = 0; i < 300; ++i) text.push_back(static_cast<char>(i * 37 + 11));
  for (size_t n = 0; n <= text.size(); ++n) {
    const std::string part = text.substr(0, n);
    const std::string expected = digest_of(part, csrm::Sha256Path::kPortable);
    CHECK(digest_of(part, csrm::Sha256Path::kBest) == expected);
    csrm::Sha256 split;
    split.update(part.data(), n / 3);
    split.update(part.data() + n / 3, n - n / 3);
    CHECK(csrm::to_hex(split.finish()) == expected);
  }
}

}  // namespace

int main() {
  test_sha256_known_vectors_match();
  test_sha256_every_length_and_split_paths_agree();
  return csrm_test::summary();
}
