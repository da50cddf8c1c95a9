"""
The twin's KMS: its actions about keys: their policies, states, aliases, tags.

Source: AWS KMS API reference; developer guide, "Key policies", for the lock-out check.
"""

import json
import re
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Final

from local.aws.accounts import Accounts
from local.aws.conditions import make_context
from local.aws.error import AwsError, access_denied, validation_error
from local.aws.kms.call import Call, Json
from local.aws.kms.service import Action
from local.aws.kms.store import Key, KeyStore, State
from local.aws.policy import Policy, PolicyError, Request, decide, parse_policy

MAX_KEY_POLICY_BYTES: Final = 32_768  # KMS developer guide, "Quotas"
_ALIAS: Final = re.compile(r"alias/(?!aws/)[a-zA-Z0-9/_-]{1,250}", re.ASCII)
_BYPASS: Final = "BypassPolicyLockoutSafetyCheck"


class AdminActions:
    """What an administrator of keys does."""

    def __init__(self, store: KeyStore, accounts: Accounts, now: Callable[[], datetime]) -> None:
        self._store = store
        self._accounts = accounts
        self._now = now
        self.actions: Mapping[str, Action] = {
            "CancelKeyDeletion": self._cancel_key_deletion,
            "CreateAlias": self._create_alias,
            "CreateKey": self._create_key,
            "DeleteAlias": self._delete_alias,
            "DescribeKey": self._describe_key,
            "DisableKey": self._disable_key,
            "DisableKeyRotation": self._disable_key_rotation,
            "EnableKey": self._enable_key,
            "EnableKeyRotation": self._enable_key_rotation,
            "GetKeyPolicy": self._get_key_policy,
            "GetKeyRotationStatus": self._get_key_rotation_status,
            "ListAliases": self._list_aliases,
            "ListGrants": self._list_grants,
            "ListKeyPolicies": self._list_key_policies,
            "ListKeys": self._list_keys,
            "ListResourceTags": self._list_resource_tags,
            "PutKeyPolicy": self._put_key_policy,
            "ScheduleKeyDeletion": self._schedule_key_deletion,
            "TagResource": self._tag_resource,
            "UntagResource": self._untag_resource,
            "UpdateAlias": self._update_alias,
            "UpdateKeyDescription": self._update_key_description,
        }

    def parse_key_policy(self, text: str) -> Policy:
        """
        Parse a key policy as PutKeyPolicy does: known elements and principals only.

        Raises:
            AwsError: MalformedPolicyDocumentException or LimitExceededException.
        """
        if len(text.encode()) > MAX_KEY_POLICY_BYTES:
            message = f"Policy has over {MAX_KEY_POLICY_BYTES} bytes."
            raise AwsError("LimitExceededException", message)
        try:
            policy = parse_policy(text, "key")
            policy.require_known()
        except PolicyError as error:
            raise _malformed(str(error)) from None
        if not all(map(self._accounts.exists, policy.principals)):
            raise _malformed("Policy contains a statement with one or more invalid principals.")
        return policy

    def _require_no_lockout(self, call: Call, policy: Policy, resource: str) -> None:
        if call.flag(_BYPASS):
            return
        context = make_context(call.caller.facts, {"kms:CallerAccount": call.caller.account})
        request = Request("kms:PutKeyPolicy", resource, context)
        if not decide(request, call.caller, policy).allowed:
            raise _malformed(
                "The new key policy will not allow you to update the key policy in the future."
            )

    def _named(self, call: Call, facts: Mapping[str, str] | None = None) -> Key:
        """Give the key that the call names, once the caller may do this to it."""
        key = self._find(call, call.key_id())
        call.authorize(key, facts=facts)
        return key

    def _find(self, call: Call, name: str) -> Key:
        """Find a key of the caller's account: keys are run by no other, whatever policies say."""
        key = self._store.find(name, call.caller.account)
        if key.account != call.caller.account:
            raise access_denied(f"kms:{call.action} is not possible across accounts.")
        return key

    # Keys

    def _create_key(self, call: Call) -> Mapping[str, Json]:
        call.authorize(None, facts=_bypass_fact(call))
        wanted = {
            "Origin": "AWS_KMS",
            "KeySpec": "SYMMETRIC_DEFAULT",
            "KeyUsage": "ENCRYPT_DECRYPT",
        }
        if call.flag("MultiRegion") or any(call.text(k, v) != v for k, v in wanted.items()):
            raise AwsError("UnsupportedOperationException", "The twin has symmetric keys only.")
        text = call.text("Policy", default_key_policy(call.caller.root_arn))
        policy = self.parse_key_policy(text)
        self._require_no_lockout(call, policy, "*")
        tags = _tags(call)
        description = call.text("Description", "")
        key = self._store.create(
            call.caller.account,
            policy_text=text,
            policy=policy,
            description=description,
            created=self._now(),
        )
        key.tags.update(tags)
        call.key_arn = key.arn
        return {"KeyMetadata": _metadata(key)}

    def _describe_key(self, call: Call) -> Mapping[str, Json]:
        return {"KeyMetadata": _metadata(self._named(call))}

    def _list_keys(self, call: Call) -> Mapping[str, Json]:
        call.authorize(None)
        keys: list[Json] = [
            {"KeyId": k.key_id, "KeyArn": k.arn} for k in self._store.keys_of(call.caller.account)
        ]
        return {"Keys": keys, "Truncated": False}

    def _update_key_description(self, call: Call) -> Mapping[str, Json]:
        self._named(call).description = call.text("Description")
        return {}

    # States

    def _enable_key(self, call: Call) -> Mapping[str, Json]:
        return self._set_state(call, "Enabled")

    def _disable_key(self, call: Call) -> Mapping[str, Json]:
        return self._set_state(call, "Disabled")

    def _set_state(self, call: Call, state: State) -> Mapping[str, Json]:
        key = self._named(call)
        key.require_kept()
        key.state = state
        return {}

    def _schedule_key_deletion(self, call: Call) -> Mapping[str, Json]:
        days = call.number("PendingWindowInDays", 30, least=7, most=30)
        key = self._named(call, {"kms:ScheduleKeyDeletionPendingWindowInDays": str(days)})
        key.require_kept()
        key.deletion_date = self._now() + timedelta(days=days)
        key.state = "PendingDeletion"
        return {
            "KeyId": key.arn,
            "DeletionDate": key.deletion_date.timestamp(),
            "KeyState": key.state,
            "PendingWindowInDays": days,
        }

    def _cancel_key_deletion(self, call: Call) -> Mapping[str, Json]:
        key = self._named(call)
        if key.state != "PendingDeletion":
            raise AwsError("KMSInvalidStateException", f"{key.arn} is not pending deletion.")
        key.state, key.deletion_date = "Disabled", None
        return {"KeyId": key.arn}

    # Policies

    def _get_key_policy(self, call: Call) -> Mapping[str, Json]:
        _require_default(call)
        return {"Policy": self._named(call).policy_text, "PolicyName": "default"}

    def _list_key_policies(self, call: Call) -> Mapping[str, Json]:
        self._named(call)
        return {"PolicyNames": ["default"], "Truncated": False}

    def _put_key_policy(self, call: Call) -> Mapping[str, Json]:
        _require_default(call)
        key = self._named(call, _bypass_fact(call))
        key.require_kept()
        text = call.text("Policy")
        policy = self.parse_key_policy(text)
        self._require_no_lockout(call, policy, key.arn)
        with self._store.lock:
            key.policy_text, key.policy = text, policy
        return {}

    def _list_grants(self, call: Call) -> Mapping[str, Json]:
        self._named(call)
        return {"Grants": [], "Truncated": False}

    # Aliases: allowed by identity policies on the alias, and on every key concerned

    def _create_alias(self, call: Call) -> Mapping[str, Json]:
        alias = self._authorized_alias(call)
        if alias in self._store.aliases_of(call.caller.account):
            arn = self._alias_arn(call, alias)
            raise AwsError("AlreadyExistsException", f"An alias with the name {arn} already exists")
        self._store.set_alias(self._alias_arn(call, alias), self._authorized_target(call))
        return {}

    def _update_alias(self, call: Call) -> Mapping[str, Json]:
        alias = self._authorized_alias(call)
        call.authorize(self._find(call, alias))
        self._store.set_alias(self._alias_arn(call, alias), self._authorized_target(call))
        return {}

    def _delete_alias(self, call: Call) -> Mapping[str, Json]:
        alias = self._authorized_alias(call)
        call.authorize(self._find(call, alias))
        self._store.set_alias(self._alias_arn(call, alias), None)
        return {}

    def _list_aliases(self, call: Call) -> Mapping[str, Json]:
        call.authorize(None)
        only = self._find(call, call.key_id()).key_id if "KeyId" in call.body else None
        aliases: list[Json] = [
            {"AliasName": name, "AliasArn": self._alias_arn(call, name), "TargetKeyId": key_id}
            for name, key_id in self._store.aliases_of(call.caller.account).items()
            if only in {None, key_id}
        ]
        return {"Aliases": aliases, "Truncated": False}

    def _authorized_alias(self, call: Call) -> str:
        alias = call.text("AliasName")
        if not _ALIAS.fullmatch(alias):
            raise validation_error("AliasName is not alias/ and letters, digits, / _ -")
        call.authorize(None, resource=self._alias_arn(call, alias))
        return alias

    def _alias_arn(self, call: Call, alias: str) -> str:
        return self._store.alias_arn(alias, call.caller.account)

    def _authorized_target(self, call: Call) -> Key:
        target = call.key_id("TargetKeyId")
        if "alias/" in target:
            raise validation_error("Aliases must refer to keys. Not aliases")
        key = self._find(call, target)
        call.authorize(key)
        key.require_kept()
        return key

    # Rotation and tags

    def _enable_key_rotation(self, call: Call) -> Mapping[str, Json]:
        self._named(call).rotates = True
        return {}

    def _disable_key_rotation(self, call: Call) -> Mapping[str, Json]:
        self._named(call).rotates = False
        return {}

    def _get_key_rotation_status(self, call: Call) -> Mapping[str, Json]:
        key = self._named(call)
        return {"KeyRotationEnabled": key.rotates, "KeyId": key.arn}

    def _tag_resource(self, call: Call) -> Mapping[str, Json]:
        self._named(call).tags.update(_tags(call))
        return {}

    def _untag_resource(self, call: Call) -> Mapping[str, Json]:
        key = self._named(call)
        names = call.body.get("TagKeys")
        for name in names if isinstance(names, list) else []:
            key.tags.pop(str(name), None)
        return {}

    def _list_resource_tags(self, call: Call) -> Mapping[str, Json]:
        tags = self._named(call).tags
        listed: list[Json] = [{"TagKey": key, "TagValue": value} for key, value in tags.items()]
        return {"Tags": listed, "Truncated": False}


def default_key_policy(root_arn: str) -> str:
    """Give the policy of a key made without one: the account's root may do all, by delegation."""
    statement = {
        "Sid": "Enable IAM User Permissions",
        "Effect": "Allow",
        "Principal": {"AWS": root_arn},
        "Action": "kms:*",
        "Resource": "*",
    }
    return json.dumps({"Version": "2012-10-17", "Id": "key-default-1", "Statement": [statement]})


def _bypass_fact(call: Call) -> Mapping[str, str]:
    return {f"kms:{_BYPASS}": str(call.flag(_BYPASS)).lower()}


def _require_default(call: Call) -> None:
    if call.text("PolicyName", "default") != "default":
        raise AwsError("NotFoundException", "No such policy exists")


def _malformed(message: str) -> AwsError:
    return AwsError("MalformedPolicyDocumentException", message)


def _tags(call: Call) -> dict[str, str]:
    tags: dict[str, str] = {}
    listed = call.body.get("Tags", [])
    for tag in listed if isinstance(listed, list) else [None]:
        match tag:
            case {"TagKey": str(key), "TagValue": str(value)}:
                tags[key] = value
            case _:
                raise AwsError("TagException", "A tag is not a TagKey and a TagValue.")
    return tags


def _metadata(key: Key) -> dict[str, Json]:
    metadata: dict[str, Json] = {
        "AWSAccountId": key.account,
        "KeyId": key.key_id,
        "Arn": key.arn,
        "CreationDate": key.created.timestamp(),
        "Enabled": key.state == "Enabled",
        "Description": key.description,
        "KeyUsage": "ENCRYPT_DECRYPT",
        "KeyState": key.state,
        "Origin": "AWS_KMS",
        "KeyManager": "CUSTOMER",
        "KeySpec": "SYMMETRIC_DEFAULT",
        "CustomerMasterKeySpec": "SYMMETRIC_DEFAULT",
        "EncryptionAlgorithms": ["SYMMETRIC_DEFAULT"],
        "MultiRegion": False,
    }
    if key.deletion_date is not None:
        metadata["DeletionDate"] = key.deletion_date.timestamp()
    return metadata
