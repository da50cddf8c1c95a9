"""
Facts that only those need who verify documents and ask; no part of the image. Imports nothing.
"""

from typing import Final

# Attestation documents, SPEC.md section 3. Sizes: aws-nitro-enclaves-nsm-api,
# docs/attestation_process.md 2.2; the same text gives both 512 and 1,024 for user_data and
# nonce, and real documents carry 1,024.
MAX_PAYLOAD_BYTES: Final = 16 * 1024
MAX_CERTIFICATE_BYTES: Final = 1024
MAX_CABUNDLE_CERTIFICATES: Final = 8  # real documents carry 4
MAX_PCRS: Final = 32
MAX_PUBLIC_KEY_BYTES: Final = 1024
MAX_USER_DATA_BYTES: Final = 1024
MAX_NONCE_BYTES: Final = 1024
MAX_DOCUMENT_AGE_SECONDS: Final = 300  # KMS itself refuses older ones
CLOCK_LEEWAY_SECONDS: Final = 300

# Credentials
SESSION_SECONDS: Final = 900  # STS AssumeRole's minimum
RENEW_SECONDS: Final = 300  # renewed when less is left
MAX_SESSION_POLICY_CHARACTERS: Final = 2048  # STS AssumeRole, Policy
