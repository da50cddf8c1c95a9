/*
 * The emulated NSM's signer: QEMU writes an attestation document with zeros where hardware has
 * certificates and a signature; this fills them in, with the twin's keys.
 *
 * QEMU's NSM calls twin_serialize_document() where it would have encoded the finished document.
 * The variable TWIN_NSM_SIGNER names a file in PEM: the leaf's private key, the leaf, then the
 * authorities, the root first. It is read for each document, so that the twin can renew the leaf.
 * Without the variable the document stays as it was: unsigned, and refused by every verifier.
 */

#include <string.h>

#include <cbor.h>
#include <glib.h>
#include <gnutls/abstract.h>
#include <gnutls/crypto.h>
#include <gnutls/gnutls.h>
#include <gnutls/x509.h>

#include "nsm_signer.h"

#define VARIABLE "TWIN_NSM_SIGNER"
#define HALF 48                 /* r and s of P-384, each */
#define MAX_CERTIFICATES 9      /* a leaf and at most eight authorities */
#define MAX_PAYLOAD 16384

static const unsigned char PROTECTED[] = { 0xa1, 0x01, 0x38, 0x22 };    /* {1: -35}, ES384 */

typedef struct {
    gnutls_privkey_t key;
    gnutls_x509_crt_t *certificates;    /* the leaf, then the root and those below it */
    unsigned count;
} Signer;

static void forget(Signer *signer)
{
    for (unsigned i = 0; i < signer->count; i++)
        gnutls_x509_crt_deinit(signer->certificates[i]);
    gnutls_free(signer->certificates);
    if (signer->key)
        gnutls_privkey_deinit(signer->key);
    memset(signer, 0, sizeof *signer);
}

static bool load(Signer *signer, const char *path)
{
    gnutls_datum_t pem = { 0 };
    bool good = false;

    memset(signer, 0, sizeof *signer);
    if (gnutls_load_file(path, &pem) < 0)
        return false;
    if (gnutls_x509_crt_list_import2(&signer->certificates, &signer->count, &pem,
                                     GNUTLS_X509_FMT_PEM, 0) < 0)
        signer->count = 0;
    else
        good = signer->count >= 2 && signer->count <= MAX_CERTIFICATES
            && gnutls_privkey_init(&signer->key) == 0
            && gnutls_privkey_import_x509_raw(signer->key, &pem, GNUTLS_X509_FMT_PEM, NULL, 0) == 0;
    gnutls_memset(pem.data, 0, pem.size);
    gnutls_free(pem.data);
    if (!good)
        forget(signer);
    return good;
}

static cbor_item_t *encode_certificate(gnutls_x509_crt_t certificate)
{
    gnutls_datum_t der = { 0 };
    cbor_item_t *item;

    if (gnutls_x509_crt_export2(certificate, GNUTLS_X509_FMT_DER, &der) < 0)
        return NULL;
    item = cbor_build_bytestring(der.data, der.size);
    gnutls_free(der.data);
    return item;
}

/* Append item, which the array then owns. */
static bool append(cbor_item_t *array, cbor_item_t *item)
{
    bool good = item && cbor_array_push(array, item);

    if (item)
        cbor_decref(&item);
    return good;
}

static cbor_item_t *encode_authorities(const Signer *signer)
{
    cbor_item_t *array = cbor_new_definite_array(signer->count - 1);
    bool good = array != NULL;

    for (unsigned i = 1; good && i < signer->count; i++)
        good = append(array, encode_certificate(signer->certificates[i]));
    if (!good && array)
        cbor_decref(&array);
    return array;
}

static bool is_named(const cbor_item_t *key, const char *name)
{
    return cbor_isa_string(key) && cbor_string_is_definite(key)
        && cbor_string_length(key) == strlen(name)
        && memcmp(cbor_string_handle(key), name, strlen(name)) == 0;
}

/* Put item in the place of the value called name; the map owns it afterwards. */
static bool put(cbor_item_t *map, const char *name, cbor_item_t *item)
{
    struct cbor_pair *pairs = cbor_map_handle(map);

    for (size_t i = 0; item && i < cbor_map_size(map); i++) {
        if (is_named(pairs[i].key, name)) {
            cbor_decref(&pairs[i].value);
            pairs[i].value = item;
            return true;
        }
    }
    if (item)
        cbor_decref(&item);
    return false;
}

/* Give QEMU's payload with the signer's certificates in it: its length, or 0. */
static size_t certify(const Signer *signer, const cbor_item_t *payload, unsigned char *out)
{
    struct cbor_load_result result;
    cbor_item_t *map;
    size_t length = 0;

    map = cbor_load(cbor_bytestring_handle(payload), cbor_bytestring_length(payload), &result);
    if (!map)
        return 0;
    if (cbor_isa_map(map) && put(map, "certificate", encode_certificate(signer->certificates[0]))
        && put(map, "cabundle", encode_authorities(signer)))
        length = cbor_serialize(map, out, MAX_PAYLOAD);
    cbor_decref(&map);
    return length;
}

/* Encode what RFC 9052 section 4.4 has signed: its length, or 0. */
static size_t encode_signed(const unsigned char *payload, size_t length, unsigned char *out,
                            size_t room)
{
    cbor_item_t *array = cbor_new_definite_array(4);
    size_t written = 0;

    if (!array)
        return 0;
    if (append(array, cbor_build_string("Signature1"))
        && append(array, cbor_build_bytestring(PROTECTED, sizeof PROTECTED))
        && append(array, cbor_build_bytestring((const unsigned char *) "", 0))
        && append(array, cbor_build_bytestring(payload, length)))
        written = cbor_serialize(array, out, room);
    cbor_decref(&array);
    return written;
}

/* Write a number of DER, which may begin with zeros or lack them, in 48 bytes. */
static bool widen(const gnutls_datum_t *number, unsigned char *out)
{
    const unsigned char *from = number->data;
    size_t size = number->size;

    while (size > HALF && *from == 0) {
        from++;
        size--;
    }
    if (size > HALF)
        return false;
    memset(out, 0, HALF - size);
    memcpy(out + HALF - size, from, size);
    return true;
}

static bool sign(const Signer *signer, const unsigned char *data, size_t length,
                 unsigned char signature[2 * HALF])
{
    gnutls_datum_t message = { (unsigned char *) data, length };
    gnutls_datum_t der = { 0 }, r = { 0 }, s = { 0 };
    bool good;

    if (gnutls_privkey_sign_data2(signer->key, GNUTLS_SIGN_ECDSA_SHA384, 0, &message, &der) < 0)
        return false;
    good = gnutls_decode_rs_value(&der, &r, &s) == 0 && widen(&r, signature)
        && widen(&s, signature + HALF);
    gnutls_free(der.data);
    gnutls_free(r.data);
    gnutls_free(s.data);
    return good;
}

/* Encode the signed document: its length, or 0. */
static size_t join(const unsigned char *payload, size_t length,
                   const unsigned char signature[2 * HALF], unsigned char *out, size_t room)
{
    cbor_item_t *array = cbor_new_definite_array(4);
    size_t written = 0;

    if (!array)
        return 0;
    if (append(array, cbor_build_bytestring(PROTECTED, sizeof PROTECTED))
        && append(array, cbor_new_definite_map(0))
        && append(array, cbor_build_bytestring(payload, length))
        && append(array, cbor_build_bytestring(signature, 2 * HALF)))
        written = cbor_serialize(array, out, room);
    cbor_decref(&array);
    return written;
}

static size_t sign_document(const Signer *signer, const cbor_item_t *payload,
                            unsigned char *out, size_t room)
{
    g_autofree unsigned char *certified = g_malloc(MAX_PAYLOAD);
    g_autofree unsigned char *message = g_malloc(MAX_PAYLOAD + 64);
    unsigned char signature[2 * HALF];
    size_t length = certify(signer, payload, certified);
    size_t written = length ? encode_signed(certified, length, message, MAX_PAYLOAD + 64) : 0;

    if (!written || !sign(signer, message, written, signature))
        return 0;
    return join(certified, length, signature, out, room);
}

size_t twin_serialize_document(cbor_item_t *document, unsigned char *out, size_t room)
{
    const char *path = g_getenv(VARIABLE);
    cbor_item_t *payload;
    Signer signer;
    size_t length;

    if (!path)
        return cbor_serialize(document, out, room);
    if (!load(&signer, path)) {
        g_printerr("nsm: no key and chain to sign with in %s\n", path);
        return 0;
    }
    payload = cbor_array_get(document, 2);
    length = sign_document(&signer, payload, out, room);
    if (!length)
        g_printerr("nsm: the document could not be signed\n");
    cbor_decref(&payload);
    forget(&signer);
    return length;
}
