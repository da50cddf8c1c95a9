# The container that `bin/build-eif --in-container` builds an enclave's image in: Debian 12 with what
# that needs. No bit of an image depends on it: base root, compilers and wheels are pinned apart.
ARG DEBIAN=debian:bookworm
FROM ${DEBIAN}
COPY container/packages /enclave-llm-builder/image/container/packages
COPY debian/debian_packages.txt /enclave-llm-builder/image/debian/debian_packages.txt
RUN ["/enclave-llm-builder/image/container/packages"]
COPY container/inside /usr/local/bin/inside
ENTRYPOINT ["/usr/local/bin/inside"]
