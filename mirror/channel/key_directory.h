// A directory of keys: who we are and whom we let in.
//
// DIR/secret.key is ours, DIR/public.key is what the other side gets, and each file in DIR/peers has the public key of
// one machine that we talk to. A key file has one line: the 40 characters of Z85 (ZeroMQ RFC 32) of a CURVE key.
//
// Invariants:
//   1. A secret key that somebody else may read, and files or directories that somebody else may change, are refused.
//   2. No file is waited for and none larger than a key's is read; symbolic links are not followed inside DIR.
//
// Thread safety: plain functions; nothing is remembered, so a file that is removed counts at the next call.
// Errors: kInvalid for what is no key, kNotPermitted for owners and permissions, kNotFound, kExists; kIo when the
// machine failed (no descriptors, no memory), which says nothing about the keys.
#pragma once

#include <array>
#include <compare>
#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

#include "common/result.h"

namespace tarnfs {

inline constexpr std::size_t kKeyBytes = 32;
inline constexpr std::size_t kPeerKeysMax = 256;

template <class Tag>
struct CurveKey {
  std::array<std::byte, kKeyBytes> bytes{};
  auto operator<=>(const CurveKey&) const = default;
};
using PublicKey = CurveKey<struct PublicKeyTag>;
using SecretKey = CurveKey<struct SecretKeyTag>;

struct PeerKey {
  std::string name;  // of its file
  PublicKey key;
};

struct PeerKeys {
  std::vector<PeerKey> keys;
  std::vector<std::string> problems;  // files that are there and count for nothing, each with the reason
};

// kInvalid unless `text` is 40 characters of Z85 for 32 bytes.
Result<PublicKey> public_key_of(std::string_view text);
std::string to_z85(const PublicKey& key);

// kUnsupported when this machine's libzmq has no CURVE.
Status check_curve();

// Makes the directory with a new pair of keys in it; returns the path of the public key's file. kExists when there is
// a key already.
Result<std::string> make_key_directory(const std::string& directory);

Result<SecretKey> read_secret_key(const std::string& directory);
Result<PeerKeys> read_peer_keys(const std::string& directory);
// The key of the mirror at `url` (tcp://HOST:PORT): the file named HOST:PORT, else HOST, else the only one.
Result<PublicKey> read_mirror_key(const std::string& directory, const std::string& url);

}  // namespace tarnfs
