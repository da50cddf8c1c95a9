#!/bin/bash
# First boot of a parent instance: installs what the stack's assets and AL2023's repositories
# hold, starts it, waits until the enclave has proven itself, and tells CloudFormation how it went.
# infra/user_data.py fills in what stands between @ signs. Output: /var/log/cloud-init-output.log;
# what fails is on the console, too, which can be read when nothing else was started.
set -euo pipefail
export HOME=/root

region='@region@'
stack_name='@stack_name@'
logical_id='@logical_id@'
host_url='@host_url@'
host_manifest_sha256='@host_manifest_sha256@'
eif_url='@eif_url@'
eif_bytes='@eif_bytes@'
eif_sha256='@eif_sha256@'
# A word a file: URL,name,bytes,SHA-256.
weights='@weights@'
weights_bytes='@weights_bytes@'
enclave_vcpus='@enclave_vcpus@'
enclave_memory_mib='@enclave_memory_mib@'
opt=/opt/enclave-llm
state=/var/lib/enclave-llm
again=/var/lib/cloud/scripts/per-boot/enclave-llm # this script, for the one boot after the first
rm -f "$again"

doing=nothing
progress= # process id of what reports a download
doing() {
    doing=$1
    echo "enclave-llm: $(date --utc +%T) $doing"
}

# Runs on every way out: CloudFormation gets the real exit code, and the step that gave it.
# Without --role, cfn-signal signs as an instance and no principal, and its endpoint's policy
# admits the host role alone.
signal() {
    local code=$? reason=ready
    # What reports a download has these traps, too, until it has begun: it must never speak for all.
    [ "$BASHPID" = $$ ] || exit "$code"
    trap - EXIT
    trap '' HUP INT TERM
    [ -z "$progress" ] || kill "$progress" || true
    [ "$code" -eq 0 ] || reason="$doing: failed with $code, see /var/log/cloud-init-output.log"
    echo "enclave-llm: $reason" | tee /dev/console || true
    for pause in 5 20 60 0; do
        /opt/aws/bin/cfn-signal --exit-code "$code" --reason "$reason" --stack "$stack_name" \
            --resource "$logical_id" --region "$region" \
            --role "$stack_name-host-$region" && break
        sleep "$pause"
    done
    exit "$code"
}
trap signal EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM

try() { # seconds between tries, a command: a repository or S3 may have a bad moment
    local pause pauses=$1
    shift
    for pause in $pauses; do
        "$@" && return
        echo "enclave-llm: $1 failed, again in $pause s"
        sleep "$pause"
    done
    "$@"
}

size_of() { # folder: its MiB; a file that is renamed meanwhile is no failure
    du -sm "$1" 2>/dev/null | cut -f1 || true
}

report() { # folder, bytes it will have or 0; says every ten seconds how far it is
    local mib=$(($2 / 1048576)) have had rate
    had=$(size_of "$1")
    while sleep 10; do
        have=$(size_of "$1")
        rate=$(((have - had) / 10)) had=$have
        if [ "$mib" -le "$have" ] || [ "$rate" -le 0 ]; then
            echo "enclave-llm: $have MiB, $rate MiB/s"
        else
            echo "enclave-llm: $have of $mib MiB, $rate MiB/s, $(((mib - have) / rate)) s left"
        fi
    done
}

check() { # what, path, bytes, SHA-256: the file is that, or the boot ends here
    doing "checking $1"
    [ "$(stat -c %s "$2")" = "$3" ] || {
        echo "enclave-llm: $1 has $(stat -c %s "$2") bytes, expected $3"
        exit 1
    }
    echo "$4  $2" | sha256sum --check --quiet --strict
}

fetch() { # what, from where, to which path, how many bytes its folder will have
    local folder=${3%/*}
    doing "fetching $1"
    mkdir -p "$folder"
    report "$folder" "${4:-0}" &
    progress=$!
    try "5 20" aws s3 cp --region "$region" --no-progress "$2" "$3"
    kill "$progress"
    progress=
}

# Another program may hold the lock of RPM's database just after boot: dnf does not wait for it.
doing "installing packages of AL2023"
try "10 20 40 60" timeout 300 dnf install --assumeyes --quiet amazon-cloudwatch-agent \
    aws-cfn-bootstrap aws-nitro-enclaves-cli file logrotate python3.11 python3.11-pip

# Before anything else has used the memory: huge pages need it in one piece.
doing "reserving $enclave_vcpus vCPUs and $enclave_memory_mib MiB for the enclave"
printf -- '---\nmemory_mib: %s\ncpu_count: %s\n' "$enclave_memory_mib" "$enclave_vcpus" \
    >/etc/nitro_enclaves/allocator.yaml
systemctl enable nitro-enclaves-allocator.service
systemctl restart nitro-enclaves-allocator.service

# nitro-cli gives the driver a region for each page, and the driver takes so many: gigantic pages
# keep them few. The kernel finds more of them while it boots.
doing "counting pages of 1 GiB"
wanted=$((enclave_memory_mib / 1024)) got='' node=''
for folder in /sys/devices/system/node/node[0-9]*; do # the allocator reserves on one of them
    [ -r "$folder/hugepages/hugepages-1048576kB/nr_hugepages" ] || continue
    large=$(cat "$folder/hugepages/hugepages-1048576kB/nr_hugepages")
    small=$(cat "$folder/hugepages/hugepages-2048kB/nr_hugepages")
    echo "enclave-llm: ${folder##*/} has $large pages of 1 GiB and $small of 2 MiB"
    [ $((large + small)) -eq 0 ] || got=$large node=${folder##*/node}
done
if [ "${got:-$wanted}" -lt "$wanted" ] && [ ! -e "$state/restarted" ]; then
    doing "restarting once, for $wanted pages of 1 GiB instead of $got"
    mkdir -p "$state" "${again%/*}"
    grubby --update-kernel=ALL --args="hugepagesz=1G hugepages=$node:$wanted"
    cp "$0" "$again"
    chmod 0700 "$again"
    touch "$state/restarted"
    trap '' HUP INT TERM # which the restart sends, and which is no failure
    systemctl reboot
    trap - EXIT # nothing is decided
    exit 0
fi

# The package's rule may come after the device: its group must be able to open it.
doing "giving /dev/nitro_enclaves to its group"
udevadm control --reload
udevadm trigger --settle --subsystem-match=misc

fetch "the host's software" "$host_url" "$state/host.zip"
doing "checking the host's software"
rm -rf "$opt"
mkdir -p "$opt"
python3.11 -m zipfile -e "$state/host.zip" "$opt"
rm "$state/host.zip"
cd "$opt"
echo "$host_manifest_sha256  MANIFEST.sha256" | sha256sum --check --quiet --strict
sha256sum --check --quiet --strict MANIFEST.sha256
# That passes over files which are not listed.
listed=$(cut -c67- MANIFEST.sha256 | LC_ALL=C sort)
found=$(find . ! -type d ! -path ./MANIFEST.sha256 -printf '%P\n' | LC_ALL=C sort)
[ "$listed" = "$found" ]

fetch "the EIF" "$eif_url" "$state/enclave.eif" "$eif_bytes"
check "the EIF" "$state/enclave.eif" "$eif_bytes" "$eif_sha256"

# The folder has its name once every file is right: the unit of the server of weights looks for it.
if [ -n "$weights" ]; then
    rm -rf "$state/weights.new"
    for word in $weights; do
        IFS=, read -r url name size digest <<<"$word"
        fetch "$name of the weights" "$url" "$state/weights.new/$name" "$weights_bytes"
        check "$name of the weights" "$state/weights.new/$name" "$size" "$digest"
    done
    mv "$state/weights.new" "$state/weights"
fi

doing "configuring the host"
mkdir -p /etc/enclave-llm
cat >/etc/enclave-llm/host.json <<'HOST_JSON'
@host_json@
HOST_JSON

doing "installing and starting the services"
bash "$opt/install" start

doing "waiting for the enclave to prove itself"
bash "$opt/install" wait

# The group drains another instance at the signal; by then this one has passed two of the load
# balancer's checks, ten seconds apart.
doing "waiting for the load balancer"
sleep 40
