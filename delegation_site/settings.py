"""Django settings. Whatever differs between installations comes from the environment; secrets have no default.

docs/operator.md, "Settings", describes the names. `delegation_site/checks.py` refuses dangerous values at start.
"""

from pathlib import Path
from typing import Any

from csp.constants import NONE, SELF
from environ import Env

from delegation_site.environment import Environment, canonical_origin, hosts_of_services, origin_host
from infrastructure.logs import JSON_LOGGING

BASE_DIR = Path(__file__).resolve().parent.parent

env = Environment()
if (BASE_DIR / ".env").exists():
    env.read_file(str(BASE_DIR / ".env"))

SECRET_KEY: str = env.required("SECRET_KEY")
# The keys are unwrapped here, once in a process, before gunicorn forks.
ENCRYPTION_KEYS_FROM: str = env.text("ENCRYPTION_KEYS_FROM", default="")
ENCRYPTION_KEYS: str = env.key_ring("ENCRYPTION_KEYS", ENCRYPTION_KEYS_FROM)
DEBUG: bool = env.flag("DEBUG")
PUBLIC_BASE_URL: str = canonical_origin(env.required("PUBLIC_BASE_URL"))
ALLOWED_HOSTS: list[str] = env.names("ALLOWED_HOSTS", default=[origin_host(PUBLIC_BASE_URL) or ""])
ALLOW_LOCAL_ENDPOINTS: bool = env.flag("ALLOW_LOCAL_ENDPOINTS")
# Tests and demos sign in with the password alone.
REQUIRE_ADMIN_MFA: bool = env.flag("REQUIRE_ADMIN_MFA", default=not (DEBUG or ALLOW_LOCAL_ENDPOINTS))
OUTBOUND_CA_FILE: str = env.text("OUTBOUND_CA_FILE", default="")
TRUSTED_PROXY_COUNT: int = env.number("TRUSTED_PROXY_COUNT", default=0, least=0, most=100)
REDIS_URL: str = env.text("REDIS_URL", default="")
# 0 switches the standing health check off.
HEALTH_CHECK_INTERVAL_HOURS: int = env.number("HEALTH_CHECK_INTERVAL_HOURS", default=24, least=0, most=168)
# How many webhooks an endpoint gets at once, from all workers together.
WEBHOOK_CONNECTIONS: int = env.number("WEBHOOK_CONNECTIONS", default=4, least=1, most=32)
# The next four are for gunicorn. They are read here so that `manage.py check` reports mistakes.
THREADS: int = env.number("THREADS", default=16, least=1, most=1_000)
WORKERS: int = env.number("WORKERS", default=2, least=1, most=1_000)
BIND: list[str] = env.addresses("BIND", default="127.0.0.1:8000")
ACCESS_LOG: bool = env.flag("ACCESS_LOG")

# Where processes count for Prometheus (infrastructure/metrics.py), and where `manage.py metrics` serves it.
METRICS_FOLDER: str = env.text("METRICS_FOLDER", default="")
METRICS_BIND: tuple[str, int] = env.address("METRICS_BIND", default="127.0.0.1:9464")

_SERVED_OVER_TLS = PUBLIC_BASE_URL.startswith("https:")

INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.humanize",
    "whitenoise.runserver_nostatic",
    "django.contrib.staticfiles",
    "csp",
    "allauth",
    "allauth.account",
    "allauth.mfa",
    "infrastructure",
    "accounts",
    "delegation_site",
    "brands",
    "conversations",
]

MIDDLEWARE = [
    "infrastructure.logs.request_id_middleware",
    "web.middleware.head_middleware",
    "web.middleware.no_store_middleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "django.middleware.security.SecurityMiddleware",
    "web.middleware.bot_api_middleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "csp.middleware.CSPMiddleware",
    "web.errors.refuse_nul_middleware",
    "web.middleware.sign_in_middleware",
    "web.middleware.admin_policy_middleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "allauth.account.middleware.AccountMiddleware",
    "accounts.sign_in.lost_form_middleware",
    "accounts.sign_in.sign_in_limit_middleware",
    "accounts.second_factor_demand.second_factor_middleware",
]

ROOT_URLCONF = "delegation_site.urls"
WSGI_APPLICATION = "delegation_site.wsgi.application"
APPEND_SLASH = False

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ],
        },
    },
]

DATABASES = {"default": env.database("DATABASE_URL", default=f"sqlite:///{BASE_DIR / 'db.sqlite3'}")}
# Connections end after 10 minutes. Otherwise plans that PostgreSQL cached while a table was small, or before a column's
# type changed, would be used for ever.
DATABASES["default"].setdefault("CONN_MAX_AGE", 600)
if DATABASES["default"]["ENGINE"] == "django.db.backends.sqlite3":
    # IMMEDIATE takes the write lock at BEGIN. A deferred transaction fails at its first write instead of waiting.
    DATABASES["default"]["OPTIONS"] = {
        "transaction_mode": "IMMEDIATE",
        "timeout": 20,
        "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;",
    }
else:
    if DATABASES["default"]["ENGINE"] == "django.db.backends.postgresql":
        DATABASES["default"]["ENGINE"] = "infrastructure.postgresql"
    DATABASES["default"]["CONN_HEALTH_CHECKS"] = True
    # The URL gives a string, and the string "false" counts as true (infrastructure/prepared.py).
    _DISABLE_CURSORS = str(DATABASES["default"].get("DISABLE_SERVER_SIDE_CURSORS", "")).lower()
    DATABASES["default"]["DISABLE_SERVER_SIDE_CURSORS"] = _DISABLE_CURSORS in Env.BOOLEAN_TRUE_STRINGS
CACHES: dict[str, dict[str, Any]] = {
    "default": {
        # A list: Django splits a string at commas and semicolons, which a password may contain.
        "BACKEND": "infrastructure.cache.RedisOrMemoryCache",
        "LOCATION": [REDIS_URL],
        "KEY_PREFIX": "consumer-delegation",
    }
    if REDIS_URL
    # allauth's rate limits use this cache. With Django's default of 300 entries, invented user names would evict the
    # real counters.
    else {"BACKEND": "django.core.cache.backends.locmem.LocMemCache", "OPTIONS": {"MAX_ENTRIES": 20_000}},
}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

AUTH_PASSWORD_VALIDATORS = [
    {"NAME": f"django.contrib.auth.password_validation.{name}"}
    for name in (
        "UserAttributeSimilarityValidator",
        "MinimumLengthValidator",
        "CommonPasswordValidator",
        "NumericPasswordValidator",
    )
]

# Admin sign-in: accounts/sign_in.py. The operator creates accounts, so the accounts' mail addresses count as verified.
AUTHENTICATION_BACKENDS = ["allauth.account.auth_backends.AuthenticationBackend"]
LOGIN_URL = "account_login"
LOGIN_REDIRECT_URL = "admin:index"
ACCOUNT_ADAPTER = "accounts.sign_in.AccountAdapter"
ACCOUNT_LOGIN_METHODS = {"username"}
ACCOUNT_EMAIL_VERIFICATION = "none"
ACCOUNT_EMAIL_NOTIFICATIONS = True
ACCOUNT_SESSION_REMEMBER = False
ACCOUNT_LOGOUT_REDIRECT_URL = "account_login"
ACCOUNT_REAUTHENTICATION_TIMEOUT = 10 * 60
ACCOUNT_RATE_LIMITS = {"login": "20/10m/ip", "login_failed": "10/10m/ip,5/5m/key", "reauthenticate": "10/10m/user"}
MFA_ADAPTER = "accounts.sign_in.SecondFactorAdapter"
MFA_SUPPORTED_TYPES = ["totp", "webauthn", "recovery_codes"]
MFA_PASSKEY_LOGIN_ENABLED = True
MFA_ALLOW_UNVERIFIED_EMAIL = True
MFA_TOTP_ISSUER = "Consumer Delegation"
# Typed at the end of its half minute, or on a phone whose clock is off: RFC 6238 section 5.2. Once: one_time_codes.py.
MFA_TOTP_TOLERANCE = 1
MFA_FORMS = {
    "authenticate": "accounts.one_time_codes.AuthenticateOnceForm",
    "reauthenticate": "accounts.one_time_codes.ReauthenticateOnceForm",
}

LANGUAGE_CODE = "en"
# For the consumer's pages and the chat message: web/pages.py. The admin is in English.
LANGUAGES = [
    ("en", "English"),
    ("de", "Deutsch"),
    ("fr", "Français"),
    ("es", "Español"),
    ("pt-br", "Português (Brasil)"),
    ("he", "עברית"),
]
LOCALE_PATHS = [BASE_DIR / "locale"]
TIME_ZONE = "UTC"
FORMAT_MODULE_PATH = ["delegation_site.formats"]
USE_I18N = True
USE_TZ = True

STATIC_URL = "/static/"
STATICFILES_DIRS = [BASE_DIR / "static"]
WHITENOISE_ALLOW_ALL_ORIGINS = False  # no other site needs to read our files
WHITENOISE_USE_FINDERS = True  # few files, found at start: no collectstatic step to forget

# Chromium and Firefox also accept Secure and __Host- cookies over http on loopback. WebKit (Safari, all of iOS) does
# not. For WebKit the demo offers https (`--tls`), so that no cookie has to be weakened.
SESSION_COOKIE_NAME = "__Host-session"
SESSION_COOKIE_SECURE = True
SESSION_COOKIE_AGE = 8 * 60 * 60
CSRF_COOKIE_NAME = "__Host-csrf"
CSRF_COOKIE_SECURE = True
CSRF_COOKIE_HTTPONLY = True
CSRF_TRUSTED_ORIGINS = [PUBLIC_BASE_URL]
CSRF_FAILURE_VIEW = "web.errors.csrf_failure"

# Sets EMAIL_BACKEND, EMAIL_HOST, EMAIL_PORT and the other EMAIL_ settings.
_EMAIL = env.email("EMAIL_URL", default="consolemail://")
vars().update(_EMAIL)
EMAIL_TIMEOUT = 10
DEFAULT_FROM_EMAIL: str = env.text("DEFAULT_FROM_EMAIL", default=f"no-reply@{origin_host(PUBLIC_BASE_URL)}")

SECURE_SSL_REDIRECT = _SERVED_OVER_TLS
SECURE_REDIRECT_EXEMPT = [r"^health/"]
SECURE_HSTS_SECONDS = 365 * 24 * 60 * 60 if _SERVED_OVER_TLS else 0
SECURE_HSTS_INCLUDE_SUBDOMAINS = _SERVED_OVER_TLS
SECURE_HSTS_PRELOAD = _SERVED_OVER_TLS
# web/middleware.py overrides this with `same-origin` on pages with a form.
SECURE_REFERRER_POLICY = "no-referrer"
SECURE_CROSS_ORIGIN_OPENER_POLICY = "same-origin"
if TRUSTED_PROXY_COUNT:
    SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
X_FRAME_OPTIONS = "DENY"

# For the consumer's pages and the API. No form-action: Chromium and Safari apply it to redirects after a submit, which
# would block the redirect to the brand's sign-in page (B18). The admin's policy is in `web/middleware.py`.
CONTENT_SECURITY_POLICY = {
    "DIRECTIVES": {
        "default-src": [NONE],
        "style-src": [SELF],
        "script-src": [SELF],
        "img-src": [SELF],
        "base-uri": [NONE],
        "frame-ancestors": [NONE],
    },
}

DEFAULT_EXCEPTION_REPORTER = "web.errors.QuietExceptionReporter"
DEFAULT_EXCEPTION_REPORTER_FILTER = "web.errors.QuietReporterFilter"
DATA_UPLOAD_MAX_MEMORY_SIZE = 1024 * 1024
# A message shows a new bot key. Django's default storage can fall back to the session table, as plain text.
MESSAGE_STORAGE = "django.contrib.messages.storage.cookie.CookieStorage"
LOGGING = JSON_LOGGING

# Where our own services listen: no brand is called there, whatever private network it has (N14).
OWN_HOSTS: list[str] = [
    *hosts_of_services(DATABASES["default"], REDIS_URL, PUBLIC_BASE_URL, _EMAIL.get("EMAIL_HOST")),
    *env.hosts("OWN_HOSTS"),
]

# Exit with a message for each missing or invalid variable.
env.exit_if_mistakes()
