"""
Facts that all programs agree on at commit: ports, sizes, times, labels.

The enclave's measurement covers this file, so each number below is part of what an asker
verifies. Imports nothing of ours.
"""

from typing import Final

PROTOCOL_VERSION: Final = 2  # SPEC.md section 1; one version, no negotiation
LABEL: Final = b"enclave-llm/%d " % PROTOCOL_VERSION  # all that is derived or signed begins so

# Vsock and HTTP
PARENT_CID: Final = 3  # fixed by Nitro: the parent, as the enclave sees it
INFERENCE_PORT: Final = 5000  # vsock; the enclave listens
KMS_PROXY_PORT: Final = 8000  # vsock; vsock-proxy on the parent, its packaged default
PARENT_HTTP_PORT: Final = 5001

# Frames, SPEC.md section 2
MAX_FRAME_BYTES: Final = 1024 * 1024
MAX_WRITE_BYTES: Final = 32 * 1024  # kernels up to 5.x corrupt longer vsock writes silently

# Attestation, SPEC.md section 3
PCR_BYTES: Final = 48  # SHA-384
NONCE_BYTES: Final = 32  # ours
MAX_DOCUMENT_BYTES: Final = 20 * 1024  # 16,384 of payload, headers and signature around it

# HPKE, SPEC.md section 4
X25519_KEY_BYTES: Final = 32
KEY_ID_BYTES: Final = 8  # leading bytes of SHA-256(public key)
HPKE_ROTATION_SECONDS: Final = 3600
HPKE_OVERLAP_SECONDS: Final = 600  # twice the age at which a document is refused
MAX_SEEN_PER_KEY: Final = 65_536  # requests remembered per HPKE key against replay

# Sealed request, SPEC.md section 5
AUTHORIZATION_BYTES: Final = 8 * 1024  # STS tokens with a session policy stay under 4 KiB
ANSWER_SECRET_BYTES: Final = 32
CONVERSATION_BYTES: Final = 16
DATA_KEY_BYTES: Final = 32
SALT_BYTES: Final = 32
GCM_TAG_BYTES: Final = 16
QUESTION_BUCKETS: Final = (16 * 1024, 64 * 1024, 256 * 1024)  # benchmarks/wire
MAX_QUESTION_BYTES: Final = QUESTION_BUCKETS[-1] - 4  # encoded, less its length field
MAX_WRAPPED_KEY_BYTES: Final = 6144  # KMS Decrypt, CiphertextBlob
MAX_TURNS: Final = 4096  # messages and tool calls together
MAX_TOOLS_BYTES: Final = 128 * 1024  # JSON text
MAX_SCHEMA_BYTES: Final = 32 * 1024  # JSON text
MAX_ANSWERS: Final = 16  # to one question
MAX_ALTERNATIVES: Final = 20  # log-probabilities beside each token's own, as the OpenAI API has it
MAX_BIASED_TOKENS: Final = 300  # as the OpenAI API has it
MAX_STOP_STRINGS: Final = 4  # as the OpenAI API has it
MAX_STOP_BYTES: Final = 256
MOST_TOKENS: Final = 2**20  # of an answer, and the default: as many as the context leaves

# Answer stream, SPEC.md section 6
FRAME_PLAINTEXT_BYTES: Final = 1024
MAX_CONTROL_BYTES: Final = 256  # of a control token's spelling; real ones have 40 at most
BEAT_SECONDS: Final = 0.05
# 32, 48, 64, 96, 128 ... frames: the only lengths an answer stream can have.
FRAME_COUNT_BUCKETS: Final = tuple(
    n << k for k in range(9) for n in (32, 48)
)  # up to 12,288 frames, ten minutes of beats
ANSWER_DEADLINE_SECONDS: Final = 120

# Caches and concurrency inside the enclave
DATA_KEY_CACHE_SECONDS: Final = 900  # design: a revoked caller is out after 15 minutes
MAX_CACHED_DATA_KEYS: Final = 4096
MAX_CONNECTIONS: Final = 64
MAX_ACTIVE_ANSWERS: Final = 16  # in one batch of the engine
MAX_WAITING_ANSWERS: Final = 32
REQUEST_READ_SECONDS: Final = 10  # for one whole request frame
MAX_CONNECTION_SECONDS: Final = 700  # the longest answer has 12,288 beats: 614 s
MAX_START_DRIFT_SECONDS: Final = 60  # system clock against the NSM's, at start

# Encryption context of every KMS ciphertext
PURPOSE: Final = "purpose"
PURPOSE_QUESTION: Final = "question"
PURPOSE_ANSWER: Final = "answer"
PURPOSE_WEIGHTS: Final = "weights"  # SPEC.md section 8; of another key, and with `DIGEST`
DIGEST: Final = "digest"  # value: SHA-256 of model.json in lower-case hex
CONVERSATION: Final = "conversation"  # value: the conversation id in lower-case hex
# Conversations of bin/smoke start so; what KMS denies of them raises no alarm. Random ids hit it
# once in 2**40.
SMOKE_CONVERSATION_PREFIX: Final = b"smoke"
