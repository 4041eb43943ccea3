"""Django as a project would run it: settings, a URL, the test client of Django itself."""

import html
import os
import re
import sys

from django.conf import settings

settings.configure(
    ALLOWED_HOSTS=["testserver"],
    ROOT_URLCONF=__name__,
    SECRET_KEY="only for this run",
    MIDDLEWARE=["django.middleware.csrf.CsrfViewMiddleware"],
    TEMPLATES=[{"BACKEND": "django.template.backends.django.DjangoTemplates"}],
    SIGNUP_GATE_URL=os.environ["GATE_URL"],
    SIGNUP_GATE_SECRET=os.environ["GATE_SECRET"],
)

import django  # noqa: E402
from django.test import Client  # noqa: E402
from django.urls import path  # noqa: E402

django.setup()
sys.path.insert(0, sys.argv[1])
import django_form  # noqa: E402

urlpatterns = [path("signup", django_form.signup)]
browser = Client(enforce_csrf_checks=True)
browser.get("/signup")

for line in sys.stdin:
    token = browser.cookies["csrftoken"].value
    data = {"email": line.strip(), "csrfmiddlewaretoken": token}
    response = browser.post("/signup", data)
    if response.status_code == 200:
        assert response.content == b"welcome"
        print("allow")
    else:
        assert response.status_code == 422, response.status_code
        (said,) = re.findall(r"<li>(.*?)</li>", response.content.decode())
        print("block:", html.unescape(said))
django_form.gate.close()
