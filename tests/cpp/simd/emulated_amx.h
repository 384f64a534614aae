// The AMX intrinsics that the kernels use, on a CPU without tiles: the eight tiles of a thread are
// arrays, and each intrinsic is a loop after the pseudo-code of Intel's guide. What the
// instructions refuse (a tile without a shape, shapes that do not fit each other) ends the program.
// Included by emulated_avx512.h, only for tests. Intrinsics that no kernel uses are missing on
// purpose.
#ifndef CSRM_TESTS_CPP_SIMD_EMULATED_AMX_H_
#define CSRM_TESTS_CPP_SIMD_EMULATED_AMX_H_

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace csrm_emulated {

struct Tile {
  int n_rows = 0, row_bytes = 0;
  uint8_t bytes[16][64];
};

inline Tile& tile(int i) {
  thread_local Tile tiles[8];
  return tiles[i];
}

inline void require_tiles(bool is_right) {
  if (is_right) return;
  std::fprintf(stderr, "tiles: an instruction that a CPU refuses\n");
  std::abort();
}

inline Tile& shaped_tile(int i) {
  require_tiles(tile(i).n_rows > 0 && tile(i).row_bytes > 0);
  return tile(i);
}

inline void zero_tile(int i) { std::memset(shaped_tile(i).bytes, 0, sizeof(Tile::bytes)); }

inline void release_tiles() {
  for (int i = 0; i < 8; ++i) tile(i) = Tile{};
}

// 64 bytes: palette, start row, 14 of zeros, bytes of a row of 16 tiles, rows of 16 tiles.
inline void shape_tiles(const void* shapes) {
  uint8_t from[64];
  std::memcpy(from, shapes, sizeof(from));
  require_tiles(from[0] == 1 && from[1] == 0);
  release_tiles();
  for (int i = 0; i < 8; ++i) {
    uint16_t row_bytes;
    std::memcpy(&row_bytes, from + 16 + 2 * i, sizeof(row_bytes));
    tile(i).row_bytes = row_bytes;
    tile(i).n_rows = from[48 + i];
    require_tiles(row_bytes <= 64 && tile(i).n_rows <= 16);
    std::memset(tile(i).bytes, 0, sizeof(Tile::bytes));
  }
}

inline void load_tile(int i, const void* from, ptrdiff_t stride) {
  Tile& to = shaped_tile(i);
  std::memset(to.bytes, 0, sizeof(to.bytes));
  for (int r = 0; r < to.n_rows; ++r) {
    std::memcpy(to.bytes[r], static_cast<const char*>(from) + r * stride,
                static_cast<size_t>(to.row_bytes));
  }
}

inline void store_tile(int i, void* to, ptrdiff_t stride) {
  const Tile& from = shaped_tile(i);
  for (int r = 0; r < from.n_rows; ++r) {
    std::memcpy(static_cast<char*>(to) + r * stride, from.bytes[r],
                static_cast<size_t>(from.row_bytes));
  }
}

// The three tiles of sums += a * b, whose shapes must fit.
struct TileProduct {
  TileProduct(int sums, int a, int b)
      : to(shaped_tile(sums)), x(shaped_tile(a)), y(shaped_tile(b)) {
    require_tiles(sums != a && sums != b && a != b);
    require_tiles(to.n_rows == x.n_rows && to.row_bytes == y.row_bytes &&
                  x.row_bytes == 4 * y.n_rows);
  }
  Tile& to;
  const Tile &x, &y;
};

// sums += a * b, four bytes of a row of `a` with four of a column of `b` at a time; X is the type
// of the bytes of `a`.
template <typename X>
void multiply_tiles(int sums, int a, int b) {
  const auto [to, x, y] = TileProduct(sums, a, b);
  for (int r = 0; r < to.n_rows; ++r) {
    for (int c = 0; c < to.row_bytes / 4; ++c) {
      uint32_t sum;
      std::memcpy(&sum, to.bytes[r] + 4 * c, sizeof(sum));
      for (int k = 0; k < x.row_bytes; ++k) {
        const int32_t weight = static_cast<int8_t>(y.bytes[k / 4][4 * c + k % 4]);
        sum += static_cast<uint32_t>(static_cast<X>(x.bytes[r][k]) * weight);
      }
      std::memcpy(to.bytes[r] + 4 * c, &sum, sizeof(sum));
    }
  }
}

}  // namespace csrm_emulated

#undef _tile_loadconfig
#undef _tile_release
#undef _tile_zero
#undef _tile_loadd
#undef _tile_stored
#undef _tile_dpbssd
#undef _tile_dpbusd
#define _tile_loadconfig csrm_emulated::shape_tiles
#define _tile_release csrm_emulated::release_tiles
#define _tile_zero csrm_emulated::zero_tile
#define _tile_loadd csrm_emulated::load_tile
#define _tile_stored csrm_emulated::store_tile
#define _tile_dpbssd csrm_emulated::multiply_tiles<int8_t>
#define _tile_dpbusd csrm_emulated::multiply_tiles<uint8_t>

#endif  // CSRM_TESTS_CPP_SIMD_EMULATED_AMX_H_
