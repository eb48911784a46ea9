"""allauth's sign-in pages with one more field, the scenario."""

from typing import Any

from allauth.account import forms as allauth_forms
from allauth.account import views as allauth_views
from django import forms
from django.http import HttpResponse

from demo.sample_brand.scenarios import Scenario, choose, split_login


def scenario_field() -> forms.TypedChoiceField:
    """A form field for the scenario. It is optional, because scripts may leave it out."""
    return forms.TypedChoiceField(
        label="What should happen?",
        choices=Scenario.choices,
        coerce=Scenario,
        empty_value=Scenario.SIGN_IN,
        required=False,
    )


class LoginForm(allauth_forms.LoginForm):  # type: ignore[misc]  # allauth has no types
    scenario = scenario_field()
    scenario_of_login: Scenario | None = None

    def clean_login(self) -> str:
        """Accept a scenario after the name, as in `ada+deny`, for scripts that do not send the field."""
        try:
            name, self.scenario_of_login = split_login(super().clean_login())
        except ValueError:
            known = ", ".join(f"+{scenario}" for scenario in Scenario)
            raise forms.ValidationError(f"After the name use one of {known}.") from None
        return name

    def clean(self) -> dict[str, Any]:
        cleaned: dict[str, Any] = super().clean()
        if self.scenario_of_login:
            cleaned["scenario"] = self.scenario_of_login
        return cleaned


class ReauthenticateForm(allauth_forms.ReauthenticateForm):  # type: ignore[misc]
    scenario = scenario_field()


class LoginView(allauth_views.LoginView):  # type: ignore[misc]
    form_class = LoginForm

    def form_valid(self, form: LoginForm) -> HttpResponse:
        choose(self.get_success_url(), form.cleaned_data["scenario"])
        response: HttpResponse = super().form_valid(form)
        return response


class ReauthenticateView(allauth_views.ReauthenticateView):  # type: ignore[misc]
    form_class = ReauthenticateForm

    def form_valid(self, form: ReauthenticateForm) -> HttpResponse:
        choose(self.get_success_url(), form.cleaned_data["scenario"])
        response: HttpResponse = super().form_valid(form)
        return response


login = LoginView.as_view()
reauthenticate = ReauthenticateView.as_view()
