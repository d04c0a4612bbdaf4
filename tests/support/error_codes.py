"""The provider's table of errors, written out: a code that the package loses is missed."""

CONTRACT = {
    "unauthorized": 401,
    "invalid_api_key": 401,
    "validation_error": 400,
    "source_unreachable": 400,
    "insufficient_credits": 402,
    "method_not_allowed": 405,
    "payload_too_large": 413,
    "unsupported_media_type": 415,
    "nsfw_content_detected": 422,
    "rate_limited": 429,
    "rate_limited_daily": 429,
    "rate_limited_concurrent": 429,
    "api_temporarily_disabled": 503,
}
