/* What QEMU's NSM calls to finish an attestation document: see nsm_signer.c. */

#ifndef TWIN_NSM_SIGNER_H
#define TWIN_NSM_SIGNER_H

#include <cbor.h>
#include <stddef.h>

/*
 * Encode document, a COSE_Sign1 whose third item is the payload, signed if a signer is configured.
 * Gives its length, or 0 when a configured signer fails: never an unsigned document instead.
 */
size_t twin_serialize_document(cbor_item_t *document, unsigned char *out, size_t room);

#endif
