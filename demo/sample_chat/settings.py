"""Settings of the sample chat. It has no database: chats are kept in memory."""

import environ

env = environ.Env()

SECRET_KEY = env.str("SAMPLE_CHAT_SECRET_KEY")

DEBUG = False
ALLOWED_HOSTS = ["127.0.0.1"]
ROOT_URLCONF = "demo.sample_chat.urls"
WSGI_APPLICATION = "demo.sample_chat.wsgi.application"
INSTALLED_APPS = ["demo.sample_chat"]
MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "csp.middleware.CSPMiddleware",
]
TEMPLATES = [{"BACKEND": "django.template.backends.django.DjangoTemplates", "APP_DIRS": True, "OPTIONS": {}}]
DATABASES: dict[str, dict[str, str]] = {}
USE_TZ = True
CSRF_FAILURE_VIEW = "demo.sample_chat.views.not_sent"
CSRF_COOKIE_NAME = "sample_chat_csrf"
CSRF_COOKIE_SECURE = True
CSRF_COOKIE_HTTPONLY = True
# Not Strict: the return from a sign-in is cross-site. Without the cookie Django would set a new one, and forms of the
# open chat would fail.
CSRF_COOKIE_SAMESITE = "Lax"
# The URL contains the conversation's key, so it must not be sent to other sites.
SECURE_REFERRER_POLICY = "same-origin"
CONTENT_SECURITY_POLICY = {
    "DIRECTIVES": {
        "default-src": ["'none'"],
        "style-src": ["'self'"],
        "script-src": ["'self'"],
        "connect-src": ["'self'"],
        "img-src": ["data:"],
        "form-action": ["'self'"],
        "base-uri": ["'none'"],
        "frame-ancestors": ["'none'"],
    },
}
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "handlers": {"console": {"class": "logging.StreamHandler"}},
    "root": {"handlers": ["console"], "level": "WARNING"},
}
