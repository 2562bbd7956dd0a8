"""New signatures for requests whose signature covers the host: AWS's, with the proxy's credentials.

A client signs for the host it calls, which is the proxy, so its signature is of no use upstream.
The credentials are those botocore finds (environment, profile, SSO, role, instance), as for any
program on this machine; `AWS_BEARER_TOKEN_BEDROCK` goes before them, as in AWS's own SDKs. botocore
is an extra, imported when the first request needs it. It may read files and ask the network, so all
of it runs in a thread. Whatever fails is an `UpstreamFailed` that says what to do, without secrets.
Source: https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html.
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlsplit

from llm_cache.exchange.heads import HeaderList, Headers
from llm_cache.exchange.upstream import Upstream, UpstreamFailed
from llm_cache.wire.aws import is_region

RECHECK_SEC = 60.0
"""How long credentials that don't renew themselves are taken as they are; a login renews files."""

_SIGNATURE_HEADERS = ("authorization", "x-amz-date", "x-amz-security-token", "x-amz-content-sha256")


class Signer:
    """Signs requests. One per running proxy; its threads share what was found."""

    def __init__(
        self,
        environ: Mapping[str, str] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._environ = os.environ if environ is None else environ
        self._clock = clock
        self._lock = threading.Lock()
        self._credentials: Any = None
        self._found_at = 0.0

    async def signature(
        self,
        service: str,
        upstream: Upstream,
        method: str,
        target: bytes,
        headers: Headers,
        body: bytes,
    ) -> HeaderList:
        """The headers that sign this request for `upstream`. Raises `UpstreamFailed`."""
        if token := self._environ.get("AWS_BEARER_TOKEN_BEDROCK"):
            return [(b"authorization", b"Bearer " + token.encode())]
        return await asyncio.to_thread(self._sign, service, upstream, method, target, headers, body)

    def _sign(
        self,
        service: str,
        upstream: Upstream,
        method: str,
        target: bytes,
        headers: Headers,
        body: bytes,
    ) -> HeaderList:
        try:
            from botocore.auth import SigV4Auth
            from botocore.awsrequest import AWSRequest
        except ImportError:
            raise UpstreamFailed(
                "requests to AWS must be signed by the proxy, and botocore isn't installed: "
                "pip install 'llm-cache[bedrock]', or use an API key of Bedrock"
            ) from None
        parts = urlsplit(upstream.base_url)
        covered = {
            name.decode(): value.decode("latin-1")
            for name, value in headers
            if name == b"content-type" or name.startswith(b"x-amz")
        }
        request = AWSRequest(
            method=method,
            url=f"{parts.scheme}://{parts.netloc}{(upstream.path + target).decode('ascii')}",
            headers=covered,
            data=body,
        )
        region = _region(parts.hostname or "", self._environ)
        SigV4Auth(self._current(), service, region).add_auth(request)
        signed = {name.lower(): value for name, value in request.headers.items()}
        return [
            (name.encode(), signed[name].encode("latin-1"))
            for name in _SIGNATURE_HEADERS
            if name in signed
        ]

    def _current(self) -> Any:
        """Credentials that are good now. Raises `UpstreamFailed`."""
        from botocore.credentials import RefreshableCredentials
        from botocore.exceptions import BotoCoreError, ClientError
        from botocore.session import Session

        with self._lock:
            renews = isinstance(self._credentials, RefreshableCredentials)
            if not renews and self._clock() - self._found_at > RECHECK_SEC:
                self._credentials = None
            try:
                if self._credentials is None:
                    self._credentials = Session().get_credentials()
                    self._found_at = self._clock()
                if self._credentials is not None:
                    return self._credentials.get_frozen_credentials()
            except (BotoCoreError, ClientError, OSError) as error:
                self._credentials = None
                raise UpstreamFailed(f"AWS credentials can't be had: {str(error)[:300]}") from None
        raise UpstreamFailed(
            "requests to AWS must be signed by the proxy, which finds no AWS credentials: give the "
            "environment of the proxy AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, AWS_PROFILE or "
            "AWS_BEARER_TOKEN_BEDROCK and restart it, or send an API key of Bedrock as bearer token"
        )


def _region(host: str, environ: Mapping[str, str]) -> str:
    """The region to sign for: that of the host's name, else the environment's, else us-east-1."""
    labels = [label for label in host.split(".") if is_region(label)]
    told = (environ.get("AWS_REGION"), environ.get("AWS_DEFAULT_REGION"), "us-east-1")
    return labels[0] if labels else next(region for region in told if region)
