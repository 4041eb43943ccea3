# A model as Rails has it, without the rest of Rails.
require File.join(ARGV.shift, "rails_validator")

class User
  include ActiveModel::Model
  attr_accessor :email

  validates :email, signup_gate: true
end

$stdin.each_line do |line|
  user = User.new(email: line.strip)
  puts user.valid? ? "allow" : "block: #{user.errors[:email].join}"
end
