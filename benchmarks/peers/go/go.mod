module rival

go 1.22

require github.com/AfterShip/email-verifier v1.4.1
