// Reads files with O_NOFOLLOW relative to the opened folder, so that no name leads outside it.
#include "artifact.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <memory>
#include <utility>
#include <vector>

#include "onnx_files.h"

namespace csrm {
namespace {

constexpr size_t kReadBytes = 1u << 18;
constexpr uint64_t kMaxTokenizerBytes = 64u << 20;
constexpr uint64_t kMaxModelBytes = uint64_t{2} << 30;  // protobuf's own limit

class File {
 public:
  explicit File(int descriptor) : descriptor_(descriptor) {}
  File(const File&) = delete;
  File& operator=(const File&) = delete;
  ~File() {
    if (descriptor_ >= 0) ::close(descriptor_);
  }
  int get() const { return descriptor_; }

 private:
  int descriptor_;
};

Status bad_file(const std::string& name, const std::string& problem) {
  return {Code::kBadArtifact, "artifact file " + name + " " + problem};
}

// Reads the regular file `name` of `folder`: adds its bytes to `hash`, and to `text` if not null.
Status read_file(const File& folder, const std::string& name, uint64_t max_bytes, Sha256* hash,
                 std::string* text, uint64_t* n_bytes) {
  // O_NONBLOCK: opening a named pipe must not wait for a writer before fstat can refuse it.
  const File file(
      ::openat(folder.get(), name.c_str(), O_RDONLY | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK));
  if (file.get() < 0) {
    if (errno == ELOOP) return bad_file(name, "is a symbolic link; copy the file itself");
    return bad_file(name, std::string("cannot be opened: ") + std::strerror(errno) +
                              "; copy the whole artifact folder");
  }
  struct stat info{};
  if (::fstat(file.get(), &info) != 0 || !S_ISREG(info.st_mode)) {
    return bad_file(name, "is not a regular file; copy the whole artifact folder");
  }
  if (static_cast<uint64_t>(info.st_size) > max_bytes) {
    return bad_file(name, "has " + std::to_string(info.st_size) + " bytes; expected at most " +
                              std::to_string(max_bytes) + "; copy or export the artifact again");
  }
  if (text != nullptr) text->reserve(static_cast<size_t>(info.st_size));
  const std::unique_ptr<char[]> buffer(new char[kReadBytes]);
  *n_bytes = 0;
  while (true) {
    const ssize_t n = ::read(file.get(), buffer.get(), kReadBytes);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return bad_file(name, std::string("cannot be read: ") + std::strerror(errno));
    if (n == 0) return Status::success();
    *n_bytes += static_cast<uint64_t>(n);
    if (*n_bytes > max_bytes) return bad_file(name, "grew while it was read; try again");
    hash->update(buffer.get(), static_cast<size_t>(n));
    if (text != nullptr) text->append(buffer.get(), static_cast<size_t>(n));
  }
}

// Verifies `listed`; its bytes, at most `max_bytes`, go to `text` unless that is null.
Status verify_file(const File& folder, const ManifestFile& listed, uint64_t max_bytes,
                   std::string* text) {
  if (text != nullptr && listed.bytes > max_bytes) {
    return bad_file(listed.name, "is larger than " + std::to_string(max_bytes) +
                                     " bytes; export the artifact again");
  }
  Sha256 hash;
  uint64_t n_bytes = 0;
  if (Status bad = read_file(folder, listed.name, listed.bytes, &hash, text, &n_bytes); !bad.ok()) {
    return bad;
  }
  if (n_bytes != listed.bytes) {
    return bad_file(listed.name, "has " + std::to_string(n_bytes) + " bytes; the manifest says " +
                                     std::to_string(listed.bytes) + "; copy the artifact again");
  }
  if (to_hex(hash.finish()) != listed.sha256) {
    return {Code::kDigestMismatch, "artifact file " + listed.name +
                                       " differs from its sha256 in manifest.json; copy the "
                                       "artifact again and distrust its source"};
  }
  return Status::success();
}

// Refuses a model whose weights are in a file that was not verified.
Status check_references(const Manifest& manifest, const std::string& name,
                        const std::string& onnx) {
  Result<std::vector<std::string>> references = external_files(onnx);
  if (!references.ok()) return references.status();
  for (const std::string& reference : references.value()) {
    const auto is_listed = [&](const ManifestFile& file) { return file.name == reference; };
    if (!std::any_of(manifest.files.begin(), manifest.files.end(), is_listed)) {
      return bad_file(name,
                      "refers to weights in a file that manifest.json does not list; export it "
                      "again");
    }
  }
  return Status::success();
}

Status verify_listed(const File& folder, const ManifestFile& listed, Artifact* artifact) {
  const Manifest& manifest = artifact->manifest;
  if (listed.name == "tokenizer.json") {
    return verify_file(folder, listed, kMaxTokenizerBytes, &artifact->tokenizer_json);
  }
  if (listed.name != manifest.portable_file && listed.name != manifest.fused_file &&
      listed.name != manifest.int8_file && listed.name != manifest.half_file &&
      listed.name != manifest.cuda_file) {
    return verify_file(folder, listed, 0, nullptr);
  }
  std::string onnx;
  Status status = verify_file(folder, listed, kMaxModelBytes, &onnx);
  return status.ok() ? check_references(manifest, listed.name, onnx) : status;
}

}  // namespace

Result<Artifact> open_artifact(const std::string& directory) {
  const File folder(::open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (directory.find('\0') != std::string::npos || folder.get() < 0) {
    return {Code::kBadArtifact, std::string("the artifact folder cannot be opened: ") +
                                    std::strerror(errno) +
                                    "; give the path of a folder with a manifest.json"};
  }
  Artifact artifact;
  artifact.directory = directory;
  std::string json;
  Sha256 hash;
  uint64_t n_bytes = 0;
  Status status = read_file(folder, "manifest.json", kMaxManifestBytes, &hash, &json, &n_bytes);
  if (!status.ok()) return status;
  artifact.digest = hash.finish();
  Result<Manifest> manifest = parse_manifest(json);
  if (!manifest.ok()) return manifest.status();
  artifact.manifest = std::move(manifest).value();
  for (const ManifestFile& listed : artifact.manifest.files) {
    status = verify_listed(folder, listed, &artifact);
    if (!status.ok()) return status;
  }
  artifact.portable_path = directory + "/" + artifact.manifest.portable_file;
  if (!artifact.manifest.fused_file.empty()) {
    artifact.fused_path = directory + "/" + artifact.manifest.fused_file;
  }
  if (!artifact.manifest.int8_file.empty()) {
    artifact.int8_path = directory + "/" + artifact.manifest.int8_file;
  }
  if (!artifact.manifest.half_file.empty()) {
    artifact.half_path = directory + "/" + artifact.manifest.half_file;
  }
  if (!artifact.manifest.cuda_file.empty()) {
    artifact.cuda_path = directory + "/" + artifact.manifest.cuda_file;
  }
  return artifact;
}

}  // namespace csrm
