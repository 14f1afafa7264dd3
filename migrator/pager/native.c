/*
 * What both ends of the pager need and Python is too slow for, measured in docs/decisions/0020: TLS in large pieces,
 * and looking for pages of zeros and for pages that are there twice.
 *
 * Called by migrator/pager/native.py through ctypes, so Python's lock is free meanwhile. A link is used by
 * one thread at a time. What fails returns NULL or -1 and leaves a sentence for `lifeboat_reason` in the
 * calling thread.
 *
 * OpenSSL 3.0 and later; manual pages SSL_CTX_set_read_ahead(3), BIO_f_buffer(3), SSL_set1_host(3).
 */
#define _GNU_SOURCE
#include "native.h"

#include <errno.h>
#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

/*
 * How much goes to, or comes from, the kernel at once: so long who answers a fault may have to wait, as a kernel that
 * is not preemptible comes to a system call's end first.
 */
#define BUFFER_BYTES (64 << 10)
#define SLOTS 2048 /* of the table of pages seen; a power of two, at least twice MOST_PAGES */

/*
 * The ciphers of TLS 1.3, the cheapest first: AES with 128 bits takes a tenth less than with 256, and both are
 * beyond what anybody can break (RFC 8446, 9.1 makes it the one that everybody has).
 */
#define CIPHERS "TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256"

/* TLS, or, where `ssl` is NULL, the bare socket, which belongs to the caller. */
struct link {
	SSL *ssl;
	int fd;
};

static __thread char reason[256];

const char *lifeboat_reason(void)
{
	return reason;
}

void lifeboat_note(const char *what)
{
	unsigned long code = ERR_get_error();
	int number = errno;

	if (code)
		snprintf(reason, sizeof(reason), "%s: %s", what, ERR_reason_error_string(code));
	else
		snprintf(reason, sizeof(reason), "%s: %s", what, number ? strerror(number) : "the other side hung up");
	ERR_clear_error();
}

/* `own` is a file with our key and certificate. */
static SSL_CTX *context_of(const char *authority, const char *own, int server)
{
	SSL_CTX *context = SSL_CTX_new(server ? TLS_server_method() : TLS_client_method());

	if (context && SSL_CTX_set_min_proto_version(context, TLS1_3_VERSION) == 1 &&
	    SSL_CTX_set_ciphersuites(context, CIPHERS) == 1 &&
	    SSL_CTX_load_verify_locations(context, authority, NULL) == 1 &&
	    SSL_CTX_use_certificate_chain_file(context, own) == 1 &&
	    SSL_CTX_use_PrivateKey_file(context, own, SSL_FILETYPE_PEM) == 1 &&
	    SSL_CTX_check_private_key(context) == 1) {
		SSL_CTX_set_verify(context, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, NULL);
		SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_OFF);
		SSL_CTX_set_num_tickets(context, 0);
		return context;
	}
	lifeboat_note("certificates");
	SSL_CTX_free(context);
	return NULL;
}

/*
 * Read and write through buffers: TLS records hold 16 KiB, and each would be a system call of its own, or two. OpenSSL's
 * own read-ahead moves all that it has read to a better place for each record (ssl3_read_n).
 */
static int join(SSL *ssl, int fd)
{
	BIO *from = BIO_new_socket(fd, BIO_NOCLOSE), *to = BIO_new_socket(fd, BIO_NOCLOSE);
	BIO *ahead = BIO_new(BIO_f_buffer()), *behind = BIO_new(BIO_f_buffer());

	if (!from || !to || !ahead || !behind || !BIO_set_read_buffer_size(ahead, BUFFER_BYTES) ||
	    !BIO_set_write_buffer_size(behind, BUFFER_BYTES)) {
		BIO_free(from);
		BIO_free(to);
		BIO_free(ahead);
		BIO_free(behind);
		return 0;
	}
	SSL_set0_rbio(ssl, BIO_push(ahead, from));
	SSL_set0_wbio(ssl, BIO_push(behind, to));
	return 1;
}

static struct link *link_of(SSL *ssl, int fd)
{
	struct link *link = malloc(sizeof(*link));

	if (!link) {
		lifeboat_note("memory");
		SSL_free(ssl);
		return NULL;
	}
	link->ssl = ssl;
	link->fd = fd;
	return link;
}

/* Make a link of a connected, blocking socket as it is. */
struct link *lifeboat_plain(int fd)
{
	return link_of(NULL, fd);
}

/* Make a link of a connected, blocking socket by TLS. `host` is NULL where we are called. */
struct link *lifeboat_open(int fd, const char *authority, const char *own, const char *host)
{
	SSL_CTX *context;
	SSL *ssl = NULL;

	ERR_clear_error();
	context = context_of(authority, own, !host);
	if (!context)
		return NULL;
	ssl = SSL_new(context);
	SSL_CTX_free(context); /* the link holds it now */
	errno = 0;
	if (ssl && join(ssl, fd) &&
	    (!host || (SSL_set1_host(ssl, host) == 1 && SSL_set_tlsext_host_name(ssl, host) == 1)) &&
	    (host ? SSL_connect(ssl) : SSL_accept(ssl)) == 1)
		return link_of(ssl, fd);
	lifeboat_note("TLS");
	SSL_free(ssl);
	return NULL;
}

/*
 * Write the other side's certificate's serial number (hexadecimal), its end (Unix seconds) and the name in it
 * to `text`, between spaces; return -1 when there is none.
 */
int lifeboat_peer(struct link *link, char *text, int size)
{
	X509 *certificate = SSL_get1_peer_certificate(link->ssl);
	BIGNUM *number = NULL;
	char *serial = NULL, name[256];
	struct tm end;
	int length = -1;

	memset(&end, 0, sizeof(end));
	if (certificate)
		number = ASN1_INTEGER_to_BN(X509_get0_serialNumber(certificate), NULL);
	if (number)
		serial = BN_bn2hex(number);
	if (serial && ASN1_TIME_to_tm(X509_get0_notAfter(certificate), &end) == 1 &&
	    X509_NAME_get_text_by_NID(X509_get_subject_name(certificate), NID_commonName, name, sizeof(name)) > 0)
		length = snprintf(text, size, "%s %lld %s", serial, (long long)timegm(&end), name);
	else
		lifeboat_note("certificate");
	OPENSSL_free(serial);
	BN_free(number);
	X509_free(certificate);
	return length < size ? length : -1;
}

static int receive_plain(int fd, unsigned char *into, size_t length)
{
	while (length) {
		ssize_t count = recv(fd, into, length < BUFFER_BYTES ? length : BUFFER_BYTES, MSG_WAITALL);

		if (count > 0) {
			into += count;
			length -= count;
		} else if (!count || errno != EINTR) {
			errno = count ? errno : 0;
			lifeboat_note("receiving");
			return -1;
		}
	}
	return 0;
}

/* Fill a buffer; return 0, or -1 when the link ends before. */
int lifeboat_receive(struct link *link, unsigned char *into, size_t length)
{
	size_t done = 0, count;

	if (!link->ssl)
		return receive_plain(link->fd, into, length);
	while (done < length) {
		ERR_clear_error();
		errno = 0;
		if (SSL_read_ex(link->ssl, into + done, length - done, &count) == 1)
			done += count;
		else if (SSL_get_error(link->ssl, 0) != SSL_ERROR_WANT_READ || errno != EINTR) {
			lifeboat_note("receiving");
			return -1;
		}
	}
	return 0;
}

static int send_plain(int fd, const unsigned char *data, size_t length)
{
	while (length) {
		ssize_t count = send(fd, data, length < BUFFER_BYTES ? length : BUFFER_BYTES, MSG_NOSIGNAL);

		if (count >= 0) {
			data += count;
			length -= count;
		} else if (errno != EINTR) {
			lifeboat_note("sending");
			return -1;
		}
	}
	return 0;
}

/* Send a buffer; return 0 when the kernel has all of it, -1 when the link ends before. */
int lifeboat_send(struct link *link, const unsigned char *data, size_t length)
{
	size_t count;

	ERR_clear_error();
	errno = 0;
	if (!link->ssl)
		return send_plain(link->fd, data, length);
	if (SSL_write_ex(link->ssl, data, length, &count) == 1 && BIO_flush(SSL_get_wbio(link->ssl)) == 1)
		return 0;
	lifeboat_note("sending");
	return -1;
}

void lifeboat_free(struct link *link)
{
	SSL_free(link->ssl);
	free(link);
}

static uint64_t number_at(const unsigned char *at)
{
	uint64_t number;

	memcpy(&number, at, sizeof(number));
	return number;
}

static uint64_t digest(const unsigned char *page)
{
	uint64_t found = 0;
	size_t at;

	for (at = 0; at < PAGE; at += 64)
		found = (found ^ number_at(page + at)) * 0x9E3779B97F4A7C15u;
	return found ^ found >> 29;
}

/*
 * Tell of each page in `data` whether it is new, zero, or one of those before, and move the new ones together.
 * Returns how many are new, -1 when there are too many pages.
 */
long lifeboat_pack(unsigned char *data, long pages, uint16_t *kinds)
{
	uint16_t seen[SLOTS]; /* page number + 1 */
	uint16_t place[MOST_PAGES]; /* where a new page is now */
	long page, kept = 0;

	if (pages > MOST_PAGES)
		return -1;
	memset(seen, 0, sizeof(seen));
	for (page = 0; page < pages; page++) {
		unsigned char *at = data + page * PAGE;
		size_t slot;

		if (!number_at(at) && !memcmp(at, at + 8, PAGE - 8)) {
			kinds[page] = ZERO;
			continue;
		}
		slot = digest(at) & (SLOTS - 1);
		while (seen[slot] && memcmp(data + place[seen[slot] - 1] * PAGE, at, PAGE))
			slot = (slot + 1) & (SLOTS - 1);
		if (seen[slot]) {
			kinds[page] = seen[slot] - 1;
			continue;
		}
		seen[slot] = page + 1;
		place[page] = kept;
		kinds[page] = WHOLE;
		if (kept != page)
			memmove(data + kept * PAGE, at, PAGE);
		kept++;
	}
	return kept;
}
