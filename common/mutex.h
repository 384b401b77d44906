// Mutexes that clang's thread-safety analysis understands.
//
// Every mutable member that is shared between threads names its mutex with TARNFS_GUARDED_BY; LOCKS.md gives the order
// in which they are taken.
#pragma once

#include <pthread.h>

#include <condition_variable>
#include <cstdlib>
#include <mutex>

#if defined(__clang__)
#define TARNFS_ATTRIBUTE(x) __attribute__((x))
#else
#define TARNFS_ATTRIBUTE(x)
#endif
#define TARNFS_CAPABILITY(x) TARNFS_ATTRIBUTE(capability(x))
#define TARNFS_SCOPED_CAPABILITY TARNFS_ATTRIBUTE(scoped_lockable)
#define TARNFS_GUARDED_BY(x) TARNFS_ATTRIBUTE(guarded_by(x))
#define TARNFS_REQUIRES(...) TARNFS_ATTRIBUTE(requires_capability(__VA_ARGS__))
#define TARNFS_REQUIRES_SHARED(...) TARNFS_ATTRIBUTE(requires_shared_capability(__VA_ARGS__))
#define TARNFS_ACQUIRE(...) TARNFS_ATTRIBUTE(acquire_capability(__VA_ARGS__))
#define TARNFS_ACQUIRE_SHARED(...) TARNFS_ATTRIBUTE(acquire_shared_capability(__VA_ARGS__))
#define TARNFS_RELEASE(...) TARNFS_ATTRIBUTE(release_capability(__VA_ARGS__))
#define TARNFS_RELEASE_SHARED(...) TARNFS_ATTRIBUTE(release_shared_capability(__VA_ARGS__))
#define TARNFS_RELEASE_GENERIC(...) TARNFS_ATTRIBUTE(release_generic_capability(__VA_ARGS__))
#define TARNFS_EXCLUDES(...) TARNFS_ATTRIBUTE(locks_excluded(__VA_ARGS__))
#define TARNFS_NO_THREAD_SAFETY_ANALYSIS TARNFS_ATTRIBUTE(no_thread_safety_analysis)

namespace tarnfs {

// The calls fail only by our own mistakes.
#define TARNFS_MUTEX_CHECK(call)   \
  do {                             \
    if ((call) != 0) std::abort(); \
  } while (false)

class TARNFS_CAPABILITY("mutex") Mutex {
 public:
  void lock() TARNFS_ACQUIRE() { mutex_.lock(); }
  void unlock() TARNFS_RELEASE() { mutex_.unlock(); }

 private:
  friend class Condition;
  std::mutex mutex_;
};

class TARNFS_SCOPED_CAPABILITY MutexLock {
 public:
  explicit MutexLock(Mutex& mutex) TARNFS_ACQUIRE(mutex) : mutex_(mutex) { mutex_.lock(); }
  ~MutexLock() TARNFS_RELEASE() { mutex_.unlock(); }
  MutexLock(const MutexLock&) = delete;
  MutexLock& operator=(const MutexLock&) = delete;

 private:
  Mutex& mutex_;
};

// Many readers or one writer; a waiting writer goes before new readers, so that no stream of readers starves it. (With
// std::shared_mutex, which prefers readers, 64 busy threads kept a consistency point waiting for ever.) A thread that
// holds it shared must not lock it again.
class TARNFS_CAPABILITY("shared mutex") SharedMutex {
 public:
  SharedMutex() {
    pthread_rwlockattr_t attributes{};
    TARNFS_MUTEX_CHECK(pthread_rwlockattr_init(&attributes));
    TARNFS_MUTEX_CHECK(pthread_rwlockattr_setkind_np(&attributes, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP));
    TARNFS_MUTEX_CHECK(pthread_rwlock_init(&lock_, &attributes));
    pthread_rwlockattr_destroy(&attributes);
  }
  ~SharedMutex() { pthread_rwlock_destroy(&lock_); }
  SharedMutex(const SharedMutex&) = delete;
  SharedMutex& operator=(const SharedMutex&) = delete;

  void lock() TARNFS_ACQUIRE() { TARNFS_MUTEX_CHECK(pthread_rwlock_wrlock(&lock_)); }
  void unlock() TARNFS_RELEASE() { TARNFS_MUTEX_CHECK(pthread_rwlock_unlock(&lock_)); }
  void lock_shared() TARNFS_ACQUIRE_SHARED() { TARNFS_MUTEX_CHECK(pthread_rwlock_rdlock(&lock_)); }
  bool try_lock_shared() TARNFS_ATTRIBUTE(try_acquire_shared_capability(true)) {
    return pthread_rwlock_tryrdlock(&lock_) == 0;
  }
  void unlock_shared() TARNFS_RELEASE_SHARED() { TARNFS_MUTEX_CHECK(pthread_rwlock_unlock(&lock_)); }

 private:
  pthread_rwlock_t lock_{};
};

class TARNFS_SCOPED_CAPABILITY WriteLock {
 public:
  explicit WriteLock(SharedMutex& mutex) TARNFS_ACQUIRE(mutex) : mutex_(mutex) { mutex_.lock(); }
  ~WriteLock() TARNFS_RELEASE() { mutex_.unlock(); }
  WriteLock(const WriteLock&) = delete;
  WriteLock& operator=(const WriteLock&) = delete;

 private:
  SharedMutex& mutex_;
};

class TARNFS_SCOPED_CAPABILITY ReadLock {
 public:
  explicit ReadLock(SharedMutex& mutex) TARNFS_ACQUIRE_SHARED(mutex) : mutex_(mutex) { mutex_.lock_shared(); }
  ~ReadLock() TARNFS_RELEASE_GENERIC() { mutex_.unlock_shared(); }
  ReadLock(const ReadLock&) = delete;
  ReadLock& operator=(const ReadLock&) = delete;

 private:
  SharedMutex& mutex_;
};

// A condition variable for Mutex. Always waited for in a loop on the condition itself.
class Condition {
 public:
  void wait(Mutex& mutex) TARNFS_REQUIRES(mutex) {
    std::unique_lock<std::mutex> lock(mutex.mutex_, std::adopt_lock);
    condition_.wait(lock);
    lock.release();
  }
  // Returns false when `timeout` (a std::chrono duration) ran out.
  template <class Duration>
  bool wait_for(Mutex& mutex, Duration timeout) TARNFS_REQUIRES(mutex) {
    std::unique_lock<std::mutex> lock(mutex.mutex_, std::adopt_lock);
    const bool notified = condition_.wait_for(lock, timeout) == std::cv_status::no_timeout;
    lock.release();
    return notified;
  }
  void notify_one() { condition_.notify_one(); }
  void notify_all() { condition_.notify_all(); }

 private:
  std::condition_variable condition_;
};

}  // namespace tarnfs
