"""Settings of the sample brand. Its secrets and its database are in one folder, which each set-up creates anew."""

from pathlib import Path

import environ

env = environ.Env()
FOLDER = Path(env.str("SAMPLE_BRAND_FOLDER"))

SECRET_KEY = env.str("SAMPLE_BRAND_SECRET_KEY")
DEBUG = False
ALLOWED_HOSTS = ["127.0.0.1"]
ROOT_URLCONF = "demo.sample_brand.urls"
WSGI_APPLICATION = "demo.sample_brand.wsgi.application"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

INSTALLED_APPS = [
    "demo.sample_brand",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "allauth",
    "allauth.account",
    "allauth.idp.oidc",
]
MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "allauth.account.middleware.AccountMiddleware",
]
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
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
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": FOLDER / "sample-brand.sqlite3",
        "OPTIONS": {"transaction_mode": "IMMEDIATE", "timeout": 20},
    },
}
AUTHENTICATION_BACKENDS = ["allauth.account.auth_backends.AuthenticationBackend"]
LANGUAGE_CODE = "en"
TIME_ZONE = "UTC"
USE_TZ = True
LOGIN_URL = "account_login"
LOGIN_REDIRECT_URL = "home"

# Cookies ignore ports, and the sample chat has the same host name: its cookies must have other names.
SESSION_COOKIE_NAME = "acme_session"
SESSION_COOKIE_SECURE = True
CSRF_COOKIE_NAME = "acme_csrf"
CSRF_COOKIE_SECURE = True
CSRF_COOKIE_HTTPONLY = True
SECURE_REFERRER_POLICY = "same-origin"

ACCOUNT_LOGIN_METHODS = {"username"}
ACCOUNT_EMAIL_VERIFICATION = "none"
ACCOUNT_SESSION_REMEMBER = False
ACCOUNT_LOGOUT_REDIRECT_URL = "home"

IDP_OIDC_ADAPTER = "demo.sample_brand.adapter.AcmeAdapter"
IDP_OIDC_PRIVATE_KEY = (FOLDER / "sample-brand-key.pem").read_text()
# Seconds. The journey sets a few, to wait until a token expires.
IDP_OIDC_ACCESS_TOKEN_EXPIRES_IN = env.int("SAMPLE_BRAND_TOKEN_LIFETIME", default=120)
IDP_OIDC_AUTH_METHODS = ["client_secret_basic"]

LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "handlers": {"console": {"class": "logging.StreamHandler"}},
    "root": {"handlers": ["console"], "level": "WARNING"},
}
