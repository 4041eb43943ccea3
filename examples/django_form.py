"""A Django signup form that asks the gate. Needs `pip install signup-gate`.

Copy `clean_email` into your own form; with django-allauth it goes into the adapter. A refusal is an
ordinary error of the field, so that the page shows it where it belongs, with or without JavaScript.
"""

from django import forms
from django.conf import settings
from django.http import HttpResponse
from django.template import engines

from gate.client import Gate

# One for the process: it keeps its connections, and is safe to use from several threads.
gate = Gate(settings.SIGNUP_GATE_URL, settings.SIGNUP_GATE_SECRET, timeout=2.0)


class SignupForm(forms.Form):
    email = forms.EmailField(max_length=254)

    def clean_email(self):
        email = self.cleaned_data["email"]
        answer = gate.check(email)  # lets in when the gate cannot be asked
        if answer.decision == "block":
            raise forms.ValidationError(
                "This address cannot be used. Is it spelled right?", code=answer.because
            )
        return email


PAGE = "<form method=post>{% csrf_token %}{{ form }}<button>Sign up</button></form>"


def signup(request):
    form = SignupForm(request.POST or None)
    if request.method == "POST" and form.is_valid():
        return HttpResponse("welcome")
    page = engines["django"].from_string(PAGE).render({"form": form}, request)
    return HttpResponse(page, status=422 if form.errors else 200)
