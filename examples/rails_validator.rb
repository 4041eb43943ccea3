# A validator for Rails (and everything else with ActiveModel) that asks the gate. Put signup.rb
# into lib/, this file into app/validators/signup_gate_validator.rb, and into your model:
#
#     validates :email, signup_gate: true, on: :create
#
# A refusal is an ordinary error of the attribute: `render :new, status: :unprocessable_entity` shows
# it. When the gate cannot be asked, the person is let in.

require "active_model"
require_relative "signup"

class SignupGateValidator < ActiveModel::EachValidator
  def validate_each(record, attribute, value)
    said = SignupGate.refusal(value.to_s)
    record.errors.add(attribute, :undeliverable, message: said) if said
  end
end
