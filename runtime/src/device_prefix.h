// The copy of a prefix's keys and values that an engine keeps in a form of its own, in its device's
// memory or packed for its operators, and the slot beside a Prefix where it lies. The engine makes
// the copy when it reads the prefix; it is freed with the Prefix. Not: what is in it (each engine
// derives its own).
#ifndef CSRM_SRC_DEVICE_PREFIX_H_
#define CSRM_SRC_DEVICE_PREFIX_H_

#include <memory>
#include <mutex>
#include <utility>

#include "csrm/status.h"

namespace csrm {

// Made by one engine and read by that engine alone. What it says is never changed once it is made.
class DevicePrefix {
 public:
  virtual ~DevicePrefix() = default;

 protected:
  DevicePrefix() = default;
  DevicePrefix(const DevicePrefix&) = delete;
  DevicePrefix& operator=(const DevicePrefix&) = delete;
};

// Thread-safe, so that it may be filled in a Prefix that is otherwise immutable. A copied or moved
// Prefix starts with an empty slot. A Prefix belongs to one Scorer, hence to one engine.
class DevicePrefixSlot {
 public:
  DevicePrefixSlot() = default;
  DevicePrefixSlot(const DevicePrefixSlot&) noexcept {}
  DevicePrefixSlot& operator=(const DevicePrefixSlot&) noexcept {
    clear();
    return *this;
  }

  // What is kept, or else what `make()` returns: a Result<std::shared_ptr<const DevicePrefix>>,
  // kept unless it failed. Other callers wait meanwhile, so that a prefix is copied once.
  template <typename Make>
  Result<std::shared_ptr<const DevicePrefix>> get_or_make(Make&& make) const {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (kept_ == nullptr) {
      Result<std::shared_ptr<const DevicePrefix>> made = std::forward<Make>(make)();
      if (!made.ok()) return made.status();
      kept_ = std::move(made).value();
    }
    return kept_;
  }

  // Forgets the copy: the keys and values beside the slot change. A running call keeps its own
  // reference.
  void clear() const noexcept {
    std::shared_ptr<const DevicePrefix> dropped;
    const std::lock_guard<std::mutex> lock(mutex_);
    dropped.swap(kept_);
  }

  bool is_empty() const {
    const std::lock_guard<std::mutex> lock(mutex_);
    return kept_ == nullptr;
  }

 private:
  mutable std::mutex mutex_;
  mutable std::shared_ptr<const DevicePrefix> kept_;
};

}  // namespace csrm

#endif  // CSRM_SRC_DEVICE_PREFIX_H_
