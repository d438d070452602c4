/* A closed-loop load on a server behind a Unix socket: each of N connections sends a request, waits
 * for its answer, checks every byte of it, and sends the next one. Prints one line of JSON.
 *
 *   load --protocol autoloadd|resp --op get|put --socket PATH --workload FILE
 *        [--hello HEX] [--sync write|fsync] [--connections N] [--seconds S] [--warm-up S]
 *        [--seed N] [--mtime NS] [--dump FILE]
 *
 * FILE is what benchmarks/bench/workload.py writes. --hello is the frame that opens a connection of
 * autoloadd. --dump writes (sent, answered) of every request: pairs of u64, CLOCK_MONOTONIC in ns.
 * SIGTERM ends a run early; what was measured until then is reported.
 * Exits with 1 when it cannot measure: a server that refuses or goes away, a wrong byte.
 *
 * One thread and one epoll set: the same loop drives both protocols, so what differs is the server.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

enum { BUFFER_BYTES = 1 << 20, HEAD_BYTES = 8, MTIME_BYTES = 8, EVENTS = 256 };
enum { TIMEOUT_MS = 10000 };

/* workload.py: little-endian header, filler, then one of these for each entry. */
struct entry {
  uint8_t name_bytes;
  char name[31];
  uint32_t blob_bytes, offset;
};
_Static_assert(sizeof(struct entry) == 40, "as workload.py packs it");

struct workload {
  uint32_t entries, filler_bytes;
  const uint8_t *filler;
  const struct entry *at;
};

struct samples {
  uint64_t *pairs; /* sent, answered */
  size_t count, room;
};

struct connection {
  int fd;
  uint8_t *in, *out;
  size_t in_bytes, out_bytes, out_sent;
  uint32_t wanted, id;
  uint64_t sent_ns;
  int is_writing;
  struct samples samples;
};

static struct workload work;
static int speaks_resp, puts_entries;
static const char *sync_word = "write";
static uint64_t mtime_ns = 1, random_state = 1;
static uint32_t put_count;
static volatile sig_atomic_t is_over;

static void end_early(int number) {
  (void)number;
  is_over = 1;
}

static void die(const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  fputs("load: ", stderr);
  vfprintf(stderr, format, arguments);
  fputc('\n', stderr);
  va_end(arguments);
  exit(1);
}

static void *allocate(size_t bytes) {
  void *memory = malloc(bytes);
  if (!memory) die("no memory for %zu bytes", bytes);
  return memory;
}

static uint64_t now_ns(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return (uint64_t)time.tv_sec * 1000000000u + (uint64_t)time.tv_nsec;
}

static uint32_t next_random(uint32_t below) { /* xorshift64* */
  random_state ^= random_state >> 12;
  random_state ^= random_state << 25;
  random_state ^= random_state >> 27;
  return (uint32_t)((random_state * 2685821657736338717u >> 32) * below >> 32);
}

static void open_workload(const char *path) {
  int fd = open(path, O_RDONLY | O_CLOEXEC);
  struct stat status;
  if (fd < 0 || fstat(fd, &status)) die("%s: %s", path, strerror(errno));
  const uint8_t *map = mmap(NULL, (size_t)status.st_size, PROT_READ, MAP_PRIVATE | MAP_POPULATE, fd, 0);
  if (map == MAP_FAILED) die("%s: %s", path, strerror(errno));
  memcpy(&work.entries, map, 4);
  memcpy(&work.filler_bytes, map + 4, 4);
  work.filler = map + 8;
  work.at = (const struct entry *)(map + 8 + work.filler_bytes);
  size_t expected = 8 + (size_t)work.filler_bytes + work.entries * sizeof(struct entry);
  if (!work.entries || (size_t)status.st_size != expected) die("%s: not a workload", path);
}

/* --- requests --- */

static uint8_t *append(uint8_t *at, const void *bytes, size_t count) {
  memcpy(at, bytes, count);
  return at + count;
}

static uint8_t *append_big_endian(uint8_t *at, uint64_t value, int bytes) {
  while (bytes--) *at++ = (uint8_t)(value >> (8 * bytes));
  return at;
}

static uint8_t *append_blob(uint8_t *at, uint32_t index, uint32_t version) {
  const struct entry *entry = &work.at[index];
  at = append(at, &version, 4);
  at = append(at, &index, 4);
  return append(at, work.filler + entry->offset, entry->blob_bytes - HEAD_BYTES);
}

static size_t write_frame(uint8_t *out, uint32_t id, uint32_t index) {
  const struct entry *entry = &work.at[index];
  uint8_t *at = append(out + 4, "\x94\x00\xce", 3);
  at = append_big_endian(at, id, 4);
  at = append(at, puts_entries ? "\xa3put\x95" : "\xa3get\x92", 5);
  *at++ = (uint8_t)(0xa0 | entry->name_bytes);
  at = append(at, entry->name, entry->name_bytes);
  if (puts_entries) {
    *at++ = 0xc6;
    at = append_big_endian(at, entry->blob_bytes, 4);
    at = append_blob(at, index, ++put_count);
  }
  *at++ = 0xcf;
  at = append_big_endian(at, mtime_ns, 8);
  if (puts_entries) {
    *at++ = 0xc0;
    *at++ = (uint8_t)(0xa0 | strlen(sync_word));
    at = append(at, sync_word, strlen(sync_word));
  }
  append_big_endian(out, (uint64_t)(at - out) - 4, 4);
  return (size_t)(at - out);
}

static size_t write_command(uint8_t *out, uint32_t index) {
  const struct entry *entry = &work.at[index];
  char *text = (char *)out;
  int bytes = sprintf(text, "*%d\r\n$3\r\n%s\r\n$%d\r\n%.*s\r\n", puts_entries ? 3 : 2,
                      puts_entries ? "SET" : "GET", entry->name_bytes, entry->name_bytes, entry->name);
  if (!puts_entries) return (size_t)bytes;
  bytes += sprintf(text + bytes, "$%u\r\n", entry->blob_bytes + MTIME_BYTES);
  uint8_t *at = append(out + bytes, &mtime_ns, MTIME_BYTES);
  at = append_blob(at, index, ++put_count);
  at = append(at, "\r\n", 2);
  return (size_t)(at - out);
}

/* --- answers --- */

static uint32_t read_big_endian(const uint8_t *at, int bytes) {
  uint32_t value = 0;
  while (bytes--) value = value << 8 | *at++;
  return value;
}

/* Return how long the answer is that begins in the buffer; 0: that is not known yet. */
static size_t answer_bytes(const struct connection *c) {
  if (!speaks_resp) return c->in_bytes < 4 ? 0 : 4 + (size_t)read_big_endian(c->in, 4);
  const uint8_t *end = memchr(c->in, '\n', c->in_bytes);
  if (!end) return 0;
  size_t line = (size_t)(end - c->in) + 1;
  if (c->in[0] != '$' || c->in[1] == '-') return line;
  return line + strtoul((const char *)c->in + 1, NULL, 10) + 2;
}

static void check_blob(const uint8_t *blob, size_t bytes, uint32_t index) {
  const struct entry *entry = &work.at[index];
  uint32_t found = 0;
  if (bytes == entry->blob_bytes) memcpy(&found, blob + 4, 4);
  if (bytes != entry->blob_bytes || found != index ||
      memcmp(blob + HEAD_BYTES, work.filler + entry->offset, bytes - HEAD_BYTES))
    die("wrong bytes for %.*s: %zu bytes", entry->name_bytes, entry->name, bytes);
}

static const uint8_t *check_echo(const uint8_t *at, const struct entry *entry) {
  int is_name = *at == (0xa0 | entry->name_bytes) && !memcmp(at + 1, entry->name, entry->name_bytes);
  if (!is_name) die("the answer to %.*s names another entry", entry->name_bytes, entry->name);
  return at + 1 + entry->name_bytes;
}

static void check_frame(const struct connection *c, size_t bytes) {
  uint8_t head[8] = {0x94, 0x01, 0xce};
  append_big_endian(head + 3, c->id, 4);
  head[7] = 0xc0;
  const uint8_t *at = c->in + 12, *end = c->in + bytes;
  if (bytes < 13 || memcmp(c->in + 4, head, 8)) die("refused: %.*s", (int)bytes - 4, c->in + 4);
  if (puts_entries) {
    if (!(*at < 0x80 || (*at >= 0xcc && *at <= 0xcf))) die("a put was answered with no generation");
    return;
  }
  if (*at != 0x95) die("a miss for %.*s", work.at[c->wanted].name_bytes, work.at[c->wanted].name);
  at = check_echo(at + 1, &work.at[c->wanted]);
  int width = *at == 0xc4 ? 1 : *at == 0xc5 ? 2 : 4;
  uint32_t length = read_big_endian(at + 1, width);
  at += 1 + width;
  if (at + length > end) die("an answer that ends within its blob");
  check_blob(at, length, c->wanted);
}

static void check_reply(const struct connection *c, size_t bytes) {
  if (puts_entries) {
    if (bytes != 5 || memcmp(c->in, "+OK\r\n", 5)) die("refused: %.*s", (int)bytes, c->in);
    return;
  }
  const uint8_t *value = (const uint8_t *)memchr(c->in, '\n', bytes) + 1;
  uint64_t mtime;
  if (c->in[0] != '$' || c->in[1] == '-') die("not a value: %.*s", (int)bytes, c->in);
  size_t length = bytes - (size_t)(value - c->in) - 2;
  memcpy(&mtime, value, MTIME_BYTES);
  if (length < MTIME_BYTES + HEAD_BYTES || mtime < mtime_ns) die("a stale or torn value");
  check_blob(value + MTIME_BYTES, length - MTIME_BYTES, c->wanted);
}

/* --- connections --- */

static void record(struct samples *samples, uint64_t sent, uint64_t answered) {
  if (samples->count == samples->room) {
    samples->room = samples->room ? 2 * samples->room : 1 << 14;
    samples->pairs = realloc(samples->pairs, samples->room * 16);
    if (!samples->pairs) die("no memory for samples");
  }
  samples->pairs[2 * samples->count] = sent;
  samples->pairs[2 * samples->count++ + 1] = answered;
}

static void watch(int set, struct connection *c, int operation, int is_writing) {
  struct epoll_event event = {.events = is_writing ? EPOLLOUT : EPOLLIN, .data.ptr = c};
  if (epoll_ctl(set, operation, c->fd, &event)) die("epoll_ctl: %s", strerror(errno));
  c->is_writing = is_writing;
}

static void send_rest(int set, struct connection *c) {
  ssize_t sent = send(c->fd, c->out + c->out_sent, c->out_bytes - c->out_sent, MSG_NOSIGNAL);
  if (sent < 0 && errno != EAGAIN) die("send: %s", strerror(errno));
  if (sent > 0) c->out_sent += (size_t)sent;
  int is_writing = c->out_sent < c->out_bytes;
  if (is_writing != c->is_writing) watch(set, c, EPOLL_CTL_MOD, is_writing);
}

static void ask(int set, struct connection *c) {
  c->wanted = next_random(work.entries);
  c->id = c->id == UINT32_MAX ? 0x10000 : c->id + 1;
  c->out_bytes = speaks_resp ? write_command(c->out, c->wanted) : write_frame(c->out, c->id, c->wanted);
  c->out_sent = 0;
  c->in_bytes = 0;
  c->sent_ns = now_ns();
  send_rest(set, c);
}

/* Read what is there; return 1 when the answer is whole and right. */
static int receive(struct connection *c) {
  ssize_t got = recv(c->fd, c->in + c->in_bytes, BUFFER_BYTES - c->in_bytes, 0);
  if (got < 0 && errno == EAGAIN) return 0;
  if (got <= 0) die("the server closed a connection: %s", got ? strerror(errno) : "end of the stream");
  c->in_bytes += (size_t)got;
  size_t bytes = answer_bytes(c);
  if (bytes > BUFFER_BYTES) die("an answer of %zu bytes", bytes);
  if (!bytes || c->in_bytes < bytes) return 0;
  if (c->in_bytes > bytes) die("more than was asked for");
  return 1;
}

static void check_answer(const struct connection *c) {
  if (speaks_resp)
    check_reply(c, c->in_bytes);
  else
    check_frame(c, c->in_bytes);
}

static void greet(struct connection *c, const char *hex) {
  size_t bytes = strlen(hex) / 2;
  for (size_t i = 0; i < bytes; i++) {
    unsigned value;
    if (sscanf(hex + 2 * i, "%2x", &value) != 1) die("--hello is not hexadecimal");
    c->out[i] = (uint8_t)value;
  }
  if (send(c->fd, c->out, bytes, MSG_NOSIGNAL) != (ssize_t)bytes) die("hello: %s", strerror(errno));
  while (!receive(c)) continue;
  /* The head of a success, whatever the id: 94 01 ce .. .. .. .. c0. */
  if (c->in_bytes < 12 || c->in[4] != 0x94 || c->in[11] != 0xc0) die("hello was refused");
}

static void open_connection(struct connection *c, const char *path, const char *hello) {
  struct sockaddr_un address = {.sun_family = AF_UNIX};
  if (strlen(path) >= sizeof address.sun_path) die("%s: too long for a socket", path);
  strcpy(address.sun_path, path);
  c->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (c->fd < 0 || connect(c->fd, (struct sockaddr *)&address, sizeof address))
    die("%s: %s", path, strerror(errno));
  c->in = allocate(BUFFER_BYTES);
  c->out = allocate(BUFFER_BYTES);
  c->id = 0x10000;
  if (hello) greet(c, hello);
  if (fcntl(c->fd, F_SETFL, O_NONBLOCK)) die("fcntl: %s", strerror(errno));
}

/* --- the run --- */

/* Drive all connections until `end`; what was sent from `begin` on counts. */
static void drive(int set, uint64_t begin, uint64_t end) {
  struct epoll_event events[EVENTS];
  while (!is_over && now_ns() < end) {
    int count = epoll_wait(set, events, EVENTS, TIMEOUT_MS);
    if (count < 0 && errno != EINTR) die("epoll_wait: %s", strerror(errno));
    if (count == 0) die("no answer within %d s", TIMEOUT_MS / 1000);
    for (int i = 0; i < count; i++) {
      struct connection *c = events[i].data.ptr;
      if (c->is_writing) {
        send_rest(set, c);
      } else if (receive(c)) {
        uint64_t answered = now_ns();
        check_answer(c);
        if (c->sent_ns >= begin) record(&c->samples, c->sent_ns, answered);
        ask(set, c);
      }
    }
  }
}

static int compare(const void *left, const void *right) {
  uint64_t a = *(const uint64_t *)left, b = *(const uint64_t *)right;
  return (a > b) - (a < b);
}

static void print_times(const struct samples *samples) {
  uint64_t *times = allocate((samples->count + 1) * sizeof *times);
  for (size_t i = 0; i < samples->count; i++) times[i] = samples->pairs[2 * i + 1] - samples->pairs[2 * i];
  qsort(times, samples->count, sizeof *times, compare);
  size_t count = samples->count;
  printf("\"operations\": %zu, \"p50_ns\": %lu, \"p99_ns\": %lu, \"max_ns\": %lu", count,
         count ? times[count / 2] : 0ul, count ? times[count * 99 / 100] : 0ul,
         count ? times[count - 1] : 0ul);
  free(times);
}

static void print_report(const struct connection *connections, int count, double seconds) {
  struct samples all = {0};
  for (int i = 0; i < count; i++)
    for (size_t j = 0; j < connections[i].samples.count; j++)
      record(&all, connections[i].samples.pairs[2 * j], connections[i].samples.pairs[2 * j + 1]);
  printf("{\"seconds\": %.6f, ", seconds);
  print_times(&all);
  printf(", \"connections\": [");
  for (int i = 0; i < count; i++) {
    printf("%s{", i ? ", " : "");
    print_times(&connections[i].samples);
    printf("}");
  }
  puts("]}");
}

static void dump_samples(const char *path, const struct connection *connections, int count) {
  FILE *file = fopen(path, "wb");
  if (!file) die("%s: %s", path, strerror(errno));
  for (int i = 0; i < count; i++)
    fwrite(connections[i].samples.pairs, 16, connections[i].samples.count, file);
  if (fclose(file)) die("%s: %s", path, strerror(errno));
}

int main(int argc, char **argv) {
  static const struct option options[] = {
      {"protocol", 1, 0, 'p'}, {"op", 1, 0, 'o'},      {"socket", 1, 0, 's'}, {"workload", 1, 0, 'w'},
      {"hello", 1, 0, 'h'},    {"sync", 1, 0, 'y'},    {"seconds", 1, 0, 't'}, {"connections", 1, 0, 'c'},
      {"warm-up", 1, 0, 'u'},  {"seed", 1, 0, 'r'},    {"mtime", 1, 0, 'm'},  {"dump", 1, 0, 'd'},
      {0},
  };
  const char *path = NULL, *workload = NULL, *hello = NULL, *dump = NULL;
  double seconds = 1, warm_up = 0.1;
  int count = 1, option;
  while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) switch (option) {
      case 'p': speaks_resp = !strcmp(optarg, "resp"); break;
      case 'o': puts_entries = !strcmp(optarg, "put"); break;
      case 's': path = optarg; break;
      case 'w': workload = optarg; break;
      case 'h': hello = optarg; break;
      case 'y': sync_word = optarg; break;
      case 't': seconds = atof(optarg); break;
      case 'c': count = atoi(optarg); break;
      case 'u': warm_up = atof(optarg); break;
      case 'r': random_state = strtoull(optarg, NULL, 10) * 2654435761u + 1; break;
      case 'm': mtime_ns = strtoull(optarg, NULL, 10); break;
      case 'd': dump = optarg; break;
      default: return 2;
    }
  if (!path || !workload || count < 1) die("--socket and --workload are needed");
  open_workload(workload);
  struct connection *connections = calloc((size_t)count, sizeof *connections);
  int set = epoll_create1(EPOLL_CLOEXEC);
  if (!connections || set < 0) die("no memory, or no epoll");
  for (int i = 0; i < count; i++) {
    open_connection(&connections[i], path, hello);
    watch(set, &connections[i], EPOLL_CTL_ADD, 0);
  }
  signal(SIGTERM, end_early);
  uint64_t start = now_ns(), begin = start + (uint64_t)(warm_up * 1e9);
  uint64_t end = begin + (uint64_t)(seconds * 1e9);
  for (int i = 0; i < count; i++) ask(set, &connections[i]);
  drive(set, begin, end);
  print_report(connections, count, (double)(now_ns() - begin) / 1e9);
  if (dump) dump_samples(dump, connections, count);
  return 0;
}
